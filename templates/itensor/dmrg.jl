# The ground state of one model by DMRG in ITensorMPS.
#
#     julia --project=PROJECT dmrg.jl
#
# PROJECT holds ITensorMPS and OrchestraITensor (the directory backends/itensor of
# bilayer_orchestra, which is a project by itself). job.toml, beside this file, holds the numbers
# of the model; output.npz and progress.jsonl appear beside it, and a killed run resumes here.

using OrchestraITensor

job = read_job(@__DIR__)

# Settings are plain entries; a change made here concerns this run alone, for example:
# job.settings["noise"] = 1e-3
# job.settings["stages"] = [50, 100, 200]

solve(job)
