# DMRG of the open ladder as one writes it by hand in ITensorMPS; itensor_accuracy.py runs it.
#
#     julia plain_dmrg.jl EVENTS RUNGS N_PER_SPIN T_PERP MAXDIM KRYLOVDIM MAXITER
#
# appends one line of JSON to EVENTS after every sweep.

using ITensors, ITensorMPS

mutable struct Reporter <: AbstractObserver
    events::String
end

function ITensorMPS.measure!(reporter::Reporter; energy, bond, half_sweep, kwargs...)
    (bond == 1 && half_sweep == 2) || return nothing
    open(io -> println(io, "{\"step\": \"sweep\", \"energy\": $energy}"), reporter.events, "a")
end

function ladder(sites, t_perp)
    terms = OpSum()
    rungs = length(sites) ÷ 2
    for x in 1:rungs, spin in ("up", "dn")
        p, m = 2x - 1, 2x
        bonds = x < rungs ? ((t_perp, p, m), (1.0, m, m + 2)) : ((t_perp, p, m),)
        for (t, i, j) in bonds
            terms += -t, "Cdag$spin", i, "C$spin", j
            terms += -t, "Cdag$spin", j, "C$spin", i
        end
    end
    for x in 1:rungs
        terms += -4.0, "Nupdn", 2x - 1
    end
    return MPO(terms, sites)
end

function ground_state(events, rungs, number, t_perp, maxdim, nsweeps; solver...)
    sites = siteinds("Electron", 2rungs; conserve_nf = true, conserve_sz = true)
    # pairs spread over the ladder
    filled = round.(Int, range(1, 2rungs; length = number))
    state = [i in filled ? "UpDn" : "Emp" for i in 1:2rungs]
    psi = random_mps(sites, state; linkdims = 10)
    dims = min.([20, 50, 50, 100, 100, 200, 200, 400], maxdim)
    noise = [1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6, 1e-7, 0.0]
    return dmrg(
        ladder(sites, t_perp), psi;
        nsweeps, maxdim = dims, cutoff = 1e-10, noise, outputlevel = 0,
        observer = Reporter(events), solver...,
    )
end

events = ARGS[1]
rungs, number = parse.(Int, ARGS[2:3])
t_perp = parse(Float64, ARGS[4])
maxdim, krylovdim, maxiter = parse.(Int, ARGS[5:7])
solver = (eigsolve_krylovdim = krylovdim, eigsolve_maxiter = maxiter)
ground_state(tempname(), 4, 3, t_perp, 50, 8; solver...)  # compile
open(io -> println(io, "{\"step\": \"start\"}"), events, "a")
ground_state(events, rungs, number, t_perp, maxdim, 40; solver...)
