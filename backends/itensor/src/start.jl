# Random starting states.

"""
    random_state(job, sites, dimension, stream)

A random matrix-product state of bond dimension about `dimension`.

Every bond carries all charges in proportion to how many product states of the sector realize
them. A product state with noise carries few, and DMRG keeps their pattern for many sweeps: on
models whose charge moves slowly it never finds the others.
"""
function random_state(job::Job, sites, dimension::Int, stream::Integer)
    rng = Xoshiro(hash((job.settings["seed"], stream)))
    n = length(sites)
    charge(up, down) = QN(("Nf", up + down, -1), ("Sz", up - down))
    links = map(1:(n - 1)) do k
        sectors = charge_sectors(k, n, job.n_up, job.n_down, dimension)
        Index([charge(up, down) => d for (up, down, d) in sectors]; tags = "Link,l=$k")
    end
    psi = MPS(n)
    for k in 1:n
        left = k == 1 ? () : (links[k - 1],)
        right = k == n ? () : (dag(links[k]),)
        total = k == n ? charge(job.n_up, job.n_down) : QN()
        psi[k] = random_itensor(rng, total, left..., sites[k], right...)
    end
    orthogonalize!(psi, 1)
    return normalize!(psi)
end

"""
    charge_sectors(k, n, n_up, n_down, dimension)

(up, down, dimension) of the sectors at the bond behind site `k` of `n`.
"""
function charge_sectors(k, n, n_up, n_down, dimension)
    # hypergeometric: share of the sector's product states with `a` of `total` electrons on the left
    share(a, total) = Float64(
        binomial(big(k), a) * binomial(big(n - k), total - a) / binomial(big(n), total)
    )
    states(a, b, sites) = binomial(big(sites), a) * binomial(big(sites), b)
    sectors = Tuple{Int,Int,Int}[]
    for up in max(0, n_up - n + k):min(k, n_up), down in max(0, n_down - n + k):min(k, n_down)
        weight = share(up, n_up) * share(down, n_down)
        room = min(states(up, down, k), states(n_up - up, n_down - down, n - k))
        # the rarest charges are left out, or long chains would start with thousands of them
        wanted = ceil(Int, dimension * weight - 0.1)
        wanted > 0 && push!(sectors, (up, down, Int(min(room, wanted))))
    end
    return sectors
end
