# The Hamiltonian as a matrix-product operator.

"""Sites of the matrix-product state; the numbers of up and down electrons are conserved."""
electron_sites(job::Job) =
    siteinds("Electron", n_sites(job); conserve_nf = true, conserve_sz = true)

"""
    hamiltonian(job, sites; shift = 0.0)

H - shift, with the -mu n terms, as an MPO.
"""
function hamiltonian(job::Job, sites; shift::Float64 = 0.0)
    terms = OpSum()
    n = length(sites)
    for a in 1:n, b in 1:n
        amplitude = job.one_body[job.order[a], job.order[b]]
        (a == b || amplitude == 0) && continue
        for spin in ("up", "dn")
            terms += amplitude, "Cdag$spin", a, "C$spin", b
        end
    end
    for (a, i) in enumerate(job.order)
        level = job.one_body[i, i] - job.potential[i]
        # spread over the sites, the constant does not enlarge the MPO
        onsite = ("Ntot" => level, "Nupdn" => job.interaction[i], "Id" => -shift / n)
        for (name, value) in onsite
            # an MPO needs one term at least, even if H vanishes
            if value != 0 || (a == 1 && name == "Id")
                terms += value, name, a
            end
        end
    end
    return MPO(terms, sites)
end

"""
The most that moving one electron can cost, and so about the largest gap there is: the difference of
two levels, the interaction on both sites, and the hopping around them.
"""
function largest_move(job::Job)
    levels = diag(job.one_body) - job.potential
    hopping = sum(abs, job.one_body - Diagonal(job.one_body); dims = 2)
    return maximum(levels) - minimum(levels) + 2 * maximum(abs, job.interaction) +
           4 * maximum(hopping)
end
