# The ground state of one model by DMRG in ITensorMPS.
#
#     julia --project=PROJECT dmrg.jl
#
# PROJECT is any Julia project that has ITensors, ITensorMPS and PrecompileTools. job.toml, beside
# this file, holds the numbers of the model; output.npz and progress.jsonl appear beside it, and a
# killed run resumes here.

# Our half is on Julia's load path when `orchestra` starts this; by hand, engine.path says where it
# is. Its first use compiles for some minutes, unless `orchestra` did it for the same packages.
if isnothing(Base.find_package("OrchestraITensor"))
    engine = readchomp(joinpath(@__DIR__, "engine.path"))
    push!(LOAD_PATH, engine)
    push!(DEPOT_PATH, joinpath(engine, "depot"))
end
using OrchestraITensor

job = read_job(@__DIR__)

# Settings are plain entries; a change made here concerns this run alone, for example:
# job.settings["noise"] = 1e-3
# job.settings["stages"] = [50, 100, 200]

solve(job)
