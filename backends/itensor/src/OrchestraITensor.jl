"""
Ground states of `H = sum_ij h_ij c+_i c_j + sum_i U_i n_up n_dn - sum_i mu_i n_i` with ITensorMPS.

`run(directory)` reads `job.toml` in `directory` and leaves `output.npz`; on the way it appends to
`progress.jsonl` and keeps `checkpoint.jls`, from which a killed run resumes. The per-run script
and a worker that serves many jobs call this one function.
"""
module OrchestraITensor

using ITensors
using ITensorMPS
using LinearAlgebra
using Random

export read_job, solve

include("job.jl")
include("npz.jl")
include("progress.jl")
include("hamiltonian.jl")
include("start.jl")
include("davidson.jl")
include("blocks.jl")
include("local_problem.jl")
include("truncation.jl")
include("sweep.jl")
include("measure.jl")
include("checkpoint.jl")
include("search.jl")

"""
    run(directory)

Solve the job in `directory`.
"""
run(directory::AbstractString) = solve(read_job(directory))

include("warm.jl")

end
