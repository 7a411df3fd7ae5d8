# All correlators in O(N^2) numbers and O(N) contractions.
#
# <A_i B_j> for i < j needs the left environments that carry A_i up to site j. Those of all i are
# kept in one tensor with an additional index `source`, so that a step to the next site is one
# contraction for all of them instead of one for each; with the state right-canonical, closing at
# site j needs the two link indices only.

"""(name, A, B, fermionic): every correlator that is measured, as <A_i B_j> with i left of j."""
const FERMIONIC = true
const PAIRS_OF_OPERATORS = (
    ("up", "Cdagup", "Cup", FERMIONIC),
    ("down", "Cdagdn", "Cdn", FERMIONIC),
    ("pair", "Cdagup * Cdagdn", "Cdn * Cup", !FERMIONIC),
)
const DENSITIES = (
    ("up up", "Nup", "Nup", !FERMIONIC),
    ("up down", "Nup", "Ndn", !FERMIONIC),
    ("down up", "Ndn", "Nup", !FERMIONIC),
    ("down down", "Ndn", "Ndn", !FERMIONIC),
)

"""
    measure(job, psi; everything = true)

Operator averages of `psi` in the model's site order:

- `green` (2, N, N): <c+_is c_js>, spins (up, down)
- `pair` (N, N): <c+_i,up c+_i,dn c_j,dn c_j,up>, and `double_occupancy` (N,), its diagonal
- `density_product` (N, N): <n_i n_j>, and `spin_spin` (N, N): <S^z_i S^z_j>, both only if asked
  for by the job and `everything`
- `entanglement_entropy` (N - 1,), of the cuts between the places of the chain, if `everything`
"""
function measure(job::Job, psi::MPS; everything::Bool = true)
    n = length(psi)
    densities = everything && !isdisjoint(job.observables, ("density_density", "spin_spin"))
    wanted = densities ? (PAIRS_OF_OPERATORS..., DENSITIES...) : PAIRS_OF_OPERATORS
    psi = orthogonalize(psi, 1)
    upper = correlators(psi, wanted)
    place = invperm(job.order)
    symmetric(name) = (c = upper[name]; (c + c' - Diagonal(c))[place, place])
    green = Array{Float64}(undef, 2, n, n)
    green[1, :, :], green[2, :, :] = symmetric("up"), symmetric("down")
    pair = symmetric("pair")
    result = Dict{String,Any}("green" => green, "pair" => pair, "double_occupancy" => diag(pair))
    if densities
        same = symmetric("up up") + symmetric("down down")
        # not symmetric by itself: <n_i,up n_j,dn> and <n_i,dn n_j,up> are different numbers
        cross = (c = upper["up down"] + upper["down up"]; c + c' - Diagonal(c))[place, place]
        result["density_product"] = same + cross
        result["spin_spin"] = 0.25 * (same - cross)
    end
    everything && (result["entanglement_entropy"] = entanglement_entropy(psi))
    return result
end

"""
    correlators(psi, wanted)

Matrices with <A_i B_j> for i <= j and zero below, by name, in the order of the chain. `psi` has
its orthogonality center at site 1.
"""
function correlators(psi::MPS, wanted)
    n = length(psi)
    result = Dict(name => zeros(n, n) for (name, _...) in wanted)
    # those that share the left operator share its environments; one after the other, since they
    # are what needs most memory at large bond dimensions
    for (a, fermionic) in unique((a, fermionic) for (_, a, _, fermionic) in wanted)
        partners = [(result[name], b) for (name, other, b, _) in wanted if other == a]
        correlators!(partners, psi, a, fermionic)
    end
    return result
end

"""
Fill every (matrix, B) of `partners` with <A_i B_j>, A being the operator `a`.

With the Jordan-Wigner string written out, <A_i B_j> = <(A F)_i F ... F B_j> for fermionic
operators, and without F for the others; products of two fermionic operators need no string.
"""
function correlators!(partners, psi::MPS, a::String, fermionic::Bool)
    n = length(psi)
    source = Index(QN() => n; tags = "source")
    carried = nothing
    environment = ITensor(1.0)
    for j in 1:n
        site, tensor = siteind(psi, j), psi[j]
        bra = prime(dag(tensor))
        # bra and ket share the link to the right, which is closed by the identity
        closed = j == n ? bra : noprime(bra, linkind(psi, j)')
        dressed(name) = apply_operator(name, tensor, site)
        for (matrix, b) in partners
            # scalar of the ordinary environment for i = j, of the carried one for i < j
            matrix[j, j] = scalar((environment * dressed("$a * $b")) * closed)
            isnothing(carried) && continue
            column = (carried * dressed(b)) * closed
            for i in 1:(j - 1)
                matrix[i, j] = column[source => i]
            end
        end
        j == n && break
        here = (environment * dressed(fermionic ? "$a * F" : a)) * bra
        here *= onehot(source => j)
        if !isnothing(carried)
            here += (carried * (fermionic ? dressed("F") : prime(tensor, site))) * bra
        end
        carried = here
        environment = (environment * prime(tensor, site)) * bra
    end
    return nothing
end

"""The operator `name` applied to the site index of `tensor`, which becomes primed."""
apply_operator(name, tensor, site) = tensor * op(name, site)

"""Von Neumann entropy of every cut of the chain; `psi` has its orthogonality center at site 1."""
function entanglement_entropy(psi::MPS)
    psi = copy(psi)
    return map(1:(length(psi) - 1)) do k
        orthogonalize!(psi, k)
        _, s, _ = svd(psi[k], uniqueinds(psi[k], psi[k + 1]))
        weights = [s[i, i]^2 for i in 1:dim(s, 1)]
        weights ./= sum(weights)
        -sum(p * log(p) for p in weights if p > 0; init = 0.0)
    end
end
