# Splitting the optimized two-site tensor into two tensors of the matrix-product state.

"""States with less weight than this are dropped at any bond dimension."""
const CUTOFF = 1e-20

"""
    split!(psi, bond, problem, vector; to_right, dimension, noise, environment)

Replace the tensors at `bond` and `bond + 1` by those of `vector`, truncated to `dimension`, with
the orthogonality center on the right one if `to_right`. Returns the discarded weight.
"""
function split!(psi::MPS, bond, problem, vector; to_right, dimension, noise, environment)
    ortho = to_right ? "left" : "right"
    isnothing(problem.operator) || return split_by_itensors!(
        psi, bond, to_tensor(problem, vector), environment; ortho, dimension, noise
    )
    blocks = map(problem.ranges, problem.shapes) do range, shape
        reshape(view(vector, range), shape)
    end
    if noise > 0
        spectra = noisy_spectra(problem, blocks, to_right, noise)
    else
        spectra = map(blocks) do block
            u, s, v = svd(block)
            (to_right ? u : v, s .^ 2)
        end
    end
    kept = keep(last.(spectra), dimension)
    bases = [basis[:, 1:k] for ((basis, _), k) in zip(spectra, kept)]
    total = sum(abs2, vector)
    rest = [to_right ? basis' * block : block * basis for (basis, block) in zip(bases, blocks)]
    weight = max(0.0, 1.0 - sum(block -> sum(abs2, block), rest) / total)
    write_tensors!(psi, bond, problem, bases, rest, to_right)
    # without noise the small weight itself is known better than its difference to one
    noise > 0 && return weight
    return sum(sum(s[(k + 1):end]) for ((_, s), k) in zip(spectra, kept); init = 0.0) / total
end

"""Eigenvectors and -values of the density matrix with noise, the largest first, by block."""
function noisy_spectra(problem, blocks, to_right, noise)
    densities = [to_right ? block * block' : block' * block for block in blocks]
    halves = to_right ? problem.lefts : problem.rights
    for key in sort!(collect(keys(halves)))
        out, in, _ = key
        moved = to_right ? halves[key] * blocks[in] : halves[key] * blocks[in]'
        mul!(densities[out], moved, moved', noise, 1.0)
    end
    return map(densities) do density
        values, vectors = eigen(Symmetric(density))
        (vectors[:, end:-1:1], max.(values[end:-1:1], 0.0))
    end
end

"""How many states of every block to keep: the `dimension` largest above the cutoff."""
function keep(spectra, dimension)
    all_values = sort!(reduce(vcat, spectra); rev = true)
    smallest = all_values[min(dimension, end)]
    # the tail below the cutoff goes as a whole
    tail, total = 0.0, sum(all_values)
    floor_value = 0.0
    for value in Iterators.reverse(all_values)
        tail += value
        tail > CUTOFF * total && break
        floor_value = value
    end
    kept = [count(value -> value >= smallest && value > floor_value, s) for s in spectra]
    sum(kept) == 0 && (kept[argmax(map(s -> maximum(s; init = 0.0), spectra))] = 1)
    return kept
end

"""Write the isometry `bases` and the remaining matrices `rest` as tensors `bond`, `bond + 1`."""
function write_tensors!(psi, bond, problem, bases, rest, to_right)
    link1, site1, site2, link2 = problem.indices
    here, there = problem.present[problem.present .<= 2], problem.present[problem.present .>= 3]
    isometric = to_right ? (link1, site1) : (site2, link2)
    side = to_right ? problem.rows : problem.columns
    space, sector_of = Pair{QN,Int}[], Dict{Int,Int}()
    for (key, (block, _)) in sort!(collect(side.place))
        (haskey(sector_of, block) || isempty(bases[block])) && continue
        total = charge(isometric[1], key[1]) + charge(isometric[2], key[2])
        push!(space, total => size(bases[block], 2))
        sector_of[block] = length(space)
    end
    link = Index(space; tags = "Link,l=$bond")
    # the isometry has no flux: its charges leave through the new link
    inner, outer = to_right ? (dag(link), link) : (link, dag(link))
    left = tensor_of(
        pieces(problem.rows, here, sector_of, k -> to_right ? bases[k] : rest[k], false),
        [problem.indices[here]..., inner],
    )
    right = tensor_of(
        pieces(problem.columns, there .- 2, sector_of, k -> to_right ? rest[k] : bases[k]', true),
        [outer, problem.indices[there]...],
    )
    center = to_right ? bond + 1 : bond
    scale = norm(to_right ? right : left)
    psi[bond], psi[bond + 1] = to_right ? (left, right / scale) : (left / scale, right)
    ITensorMPS.set_ortho_lims!(psi, center:center)
    return psi
end

charge(index, sector) = ITensors.dir(index) == ITensors.Out ? qn(index, sector) : -qn(index, sector)

"""(sectors, values) of a new tensor; `link_first` where the new link is its first index."""
function pieces(side, present, sector_of, matrix, link_first)
    result = Tuple{Vector{Int},Matrix{Float64}}[]
    for (key, (block, range)) in sort!(collect(side.place))
        haskey(sector_of, block) || continue
        source, own = matrix(block), [key[k] for k in present]
        sectors = link_first ? [sector_of[block]; own] : [own; sector_of[block]]
        push!(result, (sectors, link_first ? source[:, range] : source[range, :]))
    end
    return result
end

"""The same by ITensorMPS, with its density matrix of (link, site) pairs; less arithmetic."""
function split_by_itensors!(psi, bond, phi, environment; ortho, dimension, noise)
    perturbation = noise > 0 ? noise * ITensorMPS.noiseterm(environment, phi, ortho) : nothing
    spectrum = replacebond!(
        psi, bond, phi;
        maxdim = dimension, mindim = 1, cutoff = CUTOFF, ortho, normalize = true,
        eigen_perturbation = perturbation,
    )
    return spectrum.truncerr
end
