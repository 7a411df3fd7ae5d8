# While Julia precompiles this package, a tiny job is solved: the machine code of everything that a
# job needs, ITensorMPS's included, is then cached with the package. Without it every start would
# compile for two minutes. PrecompileTools is needed because ITensors dispatches at run time: without
# it only what a compiler can foresee is cached, and a start takes 50 s longer.

using PrecompileTools: @compile_workload

"""A ladder of three rungs with four electrons in `directory`, small enough for precompilation."""
function tiny_job(directory::AbstractString)
    one_body = zeros(6, 6)
    for (i, j, value) in ((1, 2, -0.5), (3, 4, -0.5), (5, 6, -0.5), (2, 4, -1.0), (4, 6, -1.0))
        one_body[i, j] = one_body[j, i] = value
    end
    interaction, potential = [-4.0, 0.0, -4.0, 0.0, -4.0, 0.0], fill(0.1, 6)
    settings = Dict{String,Any}(
        "stages" => [10, 20], "noise" => 1e-4, "discarded_weight" => 1e-8,
        "energy_variance" => 0.0, "max_sweeps_per_stage" => 4, "seed" => 1, "threads" => 1,
        "write_bond_dimension" => 1000, "proof" => true,
    )
    observables = ["pair", "density_density", "spin_spin"]
    return Job(
        directory, "", one_body, interaction, potential, 2, 2, collect(1:6), observables, settings
    )
end

@compile_workload begin
    let directory = mktempdir()
        solve(tiny_job(directory))
        rm(joinpath(directory, "output.npz"))
        solve(tiny_job(directory))  # from the checkpoint
        rm(joinpath(directory, "output.npz"))
        mv(joinpath(directory, "checkpoint.jls"), joinpath(directory, "start"))
        solve(tiny_job(directory))  # from another run's state
        # the reader of job.toml
        write(joinpath(directory, "job.toml"), """
            n_up = 1
            n_down = 1
            order = [1, 2]
            one_body = [[1, 2, -0.5]]
            interaction = [-4.0, 0.0]
            chemical_potential = [0.0, 0.0]
            observables = ["pair"]
            [settings]
            stages = [10]
            noise = 1e-4
            """)
        read_job(directory)
        rm(directory; recursive = true)
    end
end
