# What is to be solved: `job.toml`, numbers and the names of observables only.

using TOML

"""
One DMRG job.

`one_body` (N, N), `interaction` (N,) and `potential` (N,) are in the order of the model's sites;
site `order[k]` stands at place `k` of the matrix-product state. `settings` may be changed before
`solve`.
"""
struct Job
    directory::String
    text::String
    one_body::Matrix{Float64}
    interaction::Vector{Float64}
    potential::Vector{Float64}
    n_up::Int
    n_down::Int
    order::Vector{Int}
    observables::Vector{String}
    settings::Dict{String,Any}
end

n_sites(job::Job) = length(job.interaction)

"""Number of states with `n_up` and `n_down` electrons."""
sector_dimension(job::Job) =
    binomial(big(n_sites(job)), job.n_up) * binomial(big(n_sites(job)), job.n_down)

"""
    read_job(directory)

Read `job.toml` in `directory`.
"""
function read_job(directory::AbstractString)
    text = read(joinpath(directory, "job.toml"), String)
    data = TOML.parse(text)
    n = length(data["interaction"])
    one_body = zeros(n, n)
    for (i, j, value) in data["one_body"]
        one_body[i, j] = value
        one_body[j, i] = value
    end
    order = Vector{Int}(data["order"])
    sort(order) == 1:n || error("job.toml: order is not a permutation of 1:$n")
    return Job(
        abspath(directory),
        text,
        one_body,
        Vector{Float64}(data["interaction"]),
        Vector{Float64}(data["chemical_potential"]),
        data["n_up"],
        data["n_down"],
        order,
        Vector{String}(data["observables"]),
        Dict{String,Any}(data["settings"]),
    )
end
