# The search for the ground state and the proof that it is one.
#
# 1. ground state: the bond dimension doubles from stage to stage; each stage starts with noisy
#    sweeps and ends with noise-free ones, after which everything is measured;
# 2. second start: another random state at small bond dimension must arrive at the same energy and
#    correlators;
# 3. orthogonal state: the lowest state orthogonal to the result gives the gap. If it lies lower,
#    the result was not the ground state and the search continues from it.

"""Bond dimension at which the proof (second start, orthogonal state) is made."""
const PROOF_DIMENSION = 100
"""Noisy sweeps per stage and the factor by which each stage's noise is below the one before."""
const NOISY_SWEEPS, NOISE_DECAY = 2, 0.1
"""
A stage is settled when a noise-free sweep changes the energy, relative, by less than this or than
the discarded weight, and the correlators by less than the second number.
"""
const SETTLED, SETTLED_CORRELATORS = 1e-11, 1e-7
"""
Residual of the local solver in noisy sweeps, in the proof, and the tightest one. With the operator
in dense blocks a product costs little beside the rest of a sweep, and pairs that tunnel with an
energy of 1e-6 need it: at 3e-6 the solver leaves them where the start put them.
"""
const LOOSE, PROOF, TIGHT = 1e-6, 1e-7, 1e-11
"""Products with H per bond: what they leave undone, the next sweep does with better blocks."""
const ITERATIONS = 40
"""
A start that ends lower than the result by this much, plus this many times the discarded weight
(truncated states scatter), proves the result wrong.
"""
const LOWER, LOWER_PER_WEIGHT = 1e-7, 10.0
"""What a result without the proof says instead of its numbers."""
const NOT_PROVEN = ("second_energy", "second_deviation", "orthogonal_energy")
"""Searches in a row before giving up."""
const ATTEMPTS = 3
"""A next state with a larger share of the ground state paid the penalty rather than leaving it."""
const MAX_SHARE = 0.1

"""What does not change during a job."""
struct Search
    job::Job
    sites::Vector{<:Index}
    operator::MPO
    stages::Vector{Int}
end

function Search(job::Job, sites)
    operator = ITensorMPS.permute(hamiltonian(job, sites), (linkind, siteinds, linkind))
    return Search(job, sites, operator, Vector{Int}(job.settings["stages"]))
end

"""First stage's bond dimension that is large enough for the proof, or the last one."""
function proof_dimension(search::Search)
    k = findfirst(>=(PROOF_DIMENSION), search.stages)
    return search.stages[something(k, lastindex(search.stages))]
end

"""Where part 1 stands; this is what a checkpoint holds."""
Base.@kwdef mutable struct Record
    psi::MPS
    attempt::Int = 1
    stage::Int = 1
    sweep::Int = 0                 # of this stage
    total::Int = 0                 # of this attempt
    energy::Float64 = Inf
    weight::Float64 = 1.0
    before::Dict{String,Any} = Dict{String,Any}()
    results::Vector{Dict{String,Any}} = Dict{String,Any}[]
    finished::Bool = false
end

"""
    solve(job)

Solve `job` and write `output.npz` to its directory.
"""
function solve(job::Job)
    set_threads(job)
    rm(joinpath(job.directory, "scratch"); recursive = true, force = true)  # of a killed run
    stored = load_checkpoint(job)
    start = isnothing(stored) ? load_start(job) : stored.psi
    sites = isnothing(start) ? electron_sites(job) : siteinds(start)
    search = Search(job, sites)
    if isnothing(start)
        record = Record(; psi = random_state(job, sites, min(search.stages[1], 50), 0))
    elseif isnothing(stored)
        # without noise, which would undo what the state is good for
        record = Record(; psi = start, sweep = NOISY_SWEEPS)
        report(job; step = "begun")
    else
        record = stored
        report(job; step = "resumed", sweep = record.total)
    end
    while true
        find_ground_state!(search, record)
        better, proof = prove(search, record)
        if isnothing(better)
            write_npz(joinpath(job.directory, "output.npz"), merge(stacked(record.results), proof))
            return nothing
        end
        record.attempt < ATTEMPTS || error("$ATTEMPTS searches in a row ended in different states")
        record = Record(; psi = better, attempt = record.attempt + 1)
        save_checkpoint(job, record)
    end
end

"""One thread unless asked for more: the blocks of small bond dimensions are too small to share."""
function set_threads(job::Job)
    BLAS.set_num_threads(job.settings["threads"])
    ITensors.Strided.set_num_threads(1)
    ITensors.disable_threaded_blocksparse()
    return nothing
end

"""Part 1: grow `record.psi` until the discarded weight is small enough; checkpoint every sweep."""
function find_ground_state!(search::Search, record::Record)
    job, settings = search.job, search.job.settings
    environment = ProjMPO(search.operator)
    while !record.finished
        dimension = search.stages[record.stage]
        dimension > settings["write_bond_dimension"] && (environment = on_disk(job, environment))
        clean = record.sweep - NOISY_SWEEPS + 1  # noise-free sweeps of this stage, with this one
        noise = clean <= 0 ? settings["noise"] * NOISE_DECAY^(record.stage - 1) : 0.0
        # the local problem need not be solved better than the truncation that follows
        tolerance = noise > 0 ? LOOSE : clamp(1e-3 * sqrt(record.weight), TIGHT, 0.1 * PROOF)
        seconds = @elapsed begin
            energy, weight, products =
                sweep!(environment, record.psi; dimension, noise, tolerance, local_settings(job)...)
        end
        report(
            job;
            step = "sweep", sweep = record.total + 1, energy, bond = maxlinkdim(record.psi),
            discarded_weight = weight, noise, seconds, products,
        )
        change = abs(energy - record.energy) / max(1.0, abs(energy))
        last_one = record.sweep + 1 >= settings["max_sweeps_per_stage"]
        drift = Inf
        if clean >= 2 && (change < max(SETTLED, weight) || last_one)
            now = measure(job, record.psi; everything = false)
            drift, record.before = difference(now, record.before), now
        end
        settled = drift < max(SETTLED_CORRELATORS, 0.01 * sqrt(weight))
        record.sweep += 1
        record.total += 1
        record.energy, record.weight = energy, weight
        if settled || last_one
            push!(record.results, measure_stage(search, record, dimension, settled ? drift : Inf))
            small = weight <= settings["discarded_weight"] ||
                record.results[end]["energy_variance"] <= settings["energy_variance"]
            # two stages at least, or the truncation error could not be estimated
            enough = small && record.stage >= 2
            record.finished = enough || record.stage == length(search.stages)
            record.stage += 1
            record.sweep = 0
            empty!(record.before)
        end
        save_checkpoint(job, record)
    end
end

"""The environments in files of the job's directory, but for the two in use; gone when Julia ends."""
on_disk(job::Job, environment) =
    ITensorMPS.disk(environment; path = mkpath(joinpath(job.directory, "scratch")))

local_settings(job::Job) =
    (iterations = ITERATIONS, dense_bond = get(job.settings, "dense_bond", DENSE_BOND))

"""Largest change of the pair and Green functions; infinite without a before."""
function difference(now, before)
    isempty(before) && return Inf
    return maximum(maximum(abs, now[name] - before[name]) for name in ("pair", "green"))
end

function measure_stage(search::Search, record::Record, dimension::Int, drift::Float64)
    energy = inner(record.psi', search.operator, record.psi)
    # <(H - E)^2> instead of <H^2> - E^2, whose difference drowns in rounding
    deviation = hamiltonian(search.job, search.sites; shift = energy)
    variance = inner(deviation, record.psi, deviation, record.psi)
    report(search.job; step = "stage", bond = dimension, variance)
    result = measure(search.job, record.psi)
    result["bond_dimension"] = dimension
    result["discarded_weight"] = record.weight
    result["energy_with_mu"] = energy
    result["energy_variance"] = variance
    result["drift"] = drift
    return result
end

"""
Parts 2 and 3. Returns (state, numbers); the state is nothing unless it proves by its lower energy
that part 1 ended in a wrong one.
"""
function prove(search::Search, record::Record)
    job, results = search.job, record.results
    dimension = proof_dimension(search)
    k = something(findfirst(r -> r["bond_dimension"] >= dimension, results), lastindex(results))
    reference = results[k]
    allowed = LOWER + LOWER_PER_WEIGHT * results[end]["discarded_weight"]
    wrong_below = results[end]["energy_with_mu"] - allowed
    proof = Dict{String,Any}("proof_bond_dimension" => reference["bond_dimension"])
    if !job.settings["proof"]
        return nothing, merge!(proof, Dict(name => NaN for name in NOT_PROVEN))
    end
    # streams of random numbers that no other start uses
    second = random_state(job, search.sites, min(search.stages[1], 50), 2 * record.attempt - 1)
    energy = relax!(search, ProjMPO(search.operator), second, "second start")
    energy < wrong_below && return second, proof
    proof["second_energy"] = energy
    measured = measure(job, second; everything = false)
    proof["second_deviation"] = difference(measured, reference)
    if sector_dimension(job) == 1
        proof["orthogonal_energy"] = Inf
        return nothing, proof
    end
    next, energy = orthogonal_state(search, record)
    energy < wrong_below && return next, proof
    proof["orthogonal_energy"] = energy
    return nothing, proof
end

"""
The lowest state orthogonal to the result, and its energy without any penalty.

Where leaving the ground state costs more than the penalty, the penalty would be called a gap: then
it is raised. A small share of the ground state that is left is taken off the energy.
"""
function orthogonal_state(search::Search, record::Record)
    job, ground = search.job, record.psi
    mean(psi) = inner(psi', search.operator, psi)
    lift = largest_move(job)
    for _ in 1:ATTEMPTS
        next = random_state(job, search.sites, min(search.stages[1], 50), 2 * record.attempt)
        lifted = ITensorMPS.ProjMPO_MPS(search.operator, [ground]; weight = lift)
        relax!(search, lifted, next, "next state")
        share = abs2(inner(ground, next))
        share < MAX_SHARE && return next, (mean(next) - share * mean(ground)) / (1 - share)
        lift *= 10
    end
    error("no state was found that is orthogonal to the ground state")
end

"""Optimize `psi` at the proof's bond dimension until it is settled; return its energy."""
function relax!(search::Search, environment, psi::MPS, name::String)
    settings, dimension = search.job.settings, proof_dimension(search)
    previous = Inf
    for number in 0:(settings["max_sweeps_per_stage"] - 1)
        noise = number < 6 ? settings["noise"] * NOISE_DECAY^(number ÷ 2) : 0.0
        tolerance = noise > 0 ? LOOSE : PROOF
        energy, _, _ =
            sweep!(environment, psi; dimension, noise, tolerance, local_settings(search.job)...)
        report(search.job; step = name, sweep = number, energy, bond = maxlinkdim(psi))
        settled = noise == 0 && abs(energy - previous) < 1e-9 * max(1.0, abs(energy))
        previous = energy
        settled && break
    end
    return previous
end

"""Stage results with the stage as the first dimension."""
function stacked(results)
    return Dict{String,Any}(
        name => stack([result[name] for result in results]; dims = 1) for name in keys(results[1])
    )
end
