# One two-site DMRG sweep.

"""
    sweep!(environment, psi; dimension, noise, tolerance, iterations, dense_bond)

Optimize `psi` from left to right and back. Returns (energy, largest discarded weight, products
with H).

`environment` is a ProjMPO or ProjMPO_MPS of H that stands anywhere consistent with `psi`. The
perturbation `noise` is that of White, PRB 72, 180403 (2005). Beyond bond dimension `dense_bond`
the local operator is ITensorMPS's, see `local_problem`.
"""
function sweep!(
    environment,
    psi::MPS;
    dimension::Int,
    noise::Float64,
    tolerance::Float64,
    iterations::Int,
    dense_bond::Int = DENSE_BOND,
)
    energy, weight, products = Inf, 0.0, 0
    n = length(psi)
    bonds = [1:(n - 1); (n - 1):-1:1]
    for (step, bond) in enumerate(bonds)
        to_right = step < n
        ITensorMPS.position!(environment, psi, bond)
        dense = maxlinkdim(psi) <= dense_bond
        problem, start = local_problem(environment, psi, bond, dense)
        energy, vector, _, used = davidson(
            (y, x) -> apply!(y, problem, x), diagonal(problem), start; tolerance, iterations
        )
        products += used
        discarded =
            split!(psi, bond, problem, vector; to_right, dimension, noise, environment)
        weight = max(weight, discarded)
    end
    return energy, weight, products
end
