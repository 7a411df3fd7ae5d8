# One two-site DMRG sweep.

"""States with less weight than this are dropped at any bond dimension."""
const CUTOFF = 1e-20

"""
    sweep!(environment, psi; dimension, noise, tolerance, iterations)

Optimize `psi` from left to right and back. Returns (energy, largest discarded weight, products
with H).

`environment` is a ProjMPO or ProjMPO_MPS of H that stands anywhere consistent with `psi`. The
perturbation `noise` is that of White, PRB 72, 180403 (2005), as ITensorMPS computes it.
"""
function sweep!(
    environment,
    psi::MPS;
    dimension::Int,
    noise::Float64,
    tolerance::Float64,
    iterations::Int,
)
    energy, weight, products = Inf, 0.0, 0
    n = length(psi)
    bonds = [1:(n - 1); (n - 1):-1:1]
    for (step, bond) in enumerate(bonds)
        to_right = step < n
        ITensorMPS.position!(environment, psi, bond)
        dense = maxlinkdim(psi) <= DENSE_BOND
        problem, start = local_problem(environment, psi, bond, dense)
        energy, vector, _, used = davidson(
            (y, x) -> apply!(y, problem, x), diagonal(problem), start; tolerance, iterations
        )
        products += used
        phi = to_tensor(problem, vector)
        ortho = to_right ? "left" : "right"
        perturbation =
            noise > 0 ? noise * ITensorMPS.noiseterm(environment, phi, ortho) : nothing
        spectrum = replacebond!(
            psi,
            bond,
            phi;
            maxdim = dimension,
            mindim = 1,
            cutoff = CUTOFF,
            ortho,
            normalize = true,
            eigen_perturbation = perturbation,
        )
        weight = max(weight, spectrum.truncerr)
    end
    return energy, weight, products
end
