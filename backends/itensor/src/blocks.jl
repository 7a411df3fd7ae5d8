# Between block-sparse tensors and plain matrices.

using ITensors: NDTensors

"""(sectors, array) of every block of a tensor with D indices."""
const Blocks{D} = Vector{Tuple{NTuple{D,Int},Array{Float64,D}}}

"""
Rows or columns of the two-site tensor as a block-diagonal matrix: one block for every charge of
(link, site) on the left, to which one charge of (site, link) on the right belongs.

`place[link sector, site sector]` is (block, range inside the block).
"""
struct Side
    place::Dict{NTuple{2,Int},Tuple{Int,UnitRange{Int}}}
    sizes::Vector{Int}
end

Side() = Side(Dict{NTuple{2,Int},Tuple{Int,UnitRange{Int}}}(), Int[])

"""
All allowed sectors (link, site, site, link) of a tensor with that flux, and their places: those on
the left that carry the same charge share a block.
"""
function sides(indices, flux::QN)
    total = numbers(flux)
    left = pairs_by_charge(indices[1], indices[2])
    right = pairs_by_charge(indices[3], indices[4])
    rows, columns = Side(), Side()
    fine = NTuple{4,Int}[]
    for charge in sort!(collect(keys(left)))
        others = get(right, total .- charge, nothing)
        isnothing(others) && continue
        add_block!(rows, left[charge])
        add_block!(columns, others)
        for (a, _) in left[charge], (b, _) in others
            push!(fine, (a..., b...))
        end
    end
    return fine, rows, columns
end

"""(electrons, up minus down) of a charge."""
numbers(charge::QN) = (ITensors.val(charge, "Nf"), ITensors.val(charge, "Sz"))

"""((first sector, second sector), dimension) of two indices by the charge of the pair."""
function pairs_by_charge(first::Index, second::Index)
    result = Dict{NTuple{2,Int},Vector{Tuple{NTuple{2,Int},Int}}}()
    charges = map((first, second)) do index
        sign = dir(index) == ITensors.Out ? 1 : -1
        [(sign .* numbers(qn), d) for (qn, d) in ITensors.space(index)]
    end
    for (a, (q, m)) in enumerate(charges[1]), (b, (p, n)) in enumerate(charges[2])
        push!(get!(() -> Tuple{NTuple{2,Int},Int}[], result, q .+ p), ((a, b), m * n))
    end
    return result
end

function add_block!(side::Side, sectors)
    size = 0
    for (key, dimension) in sectors
        side.place[key] = (length(side.sizes) + 1, (size + 1):(size + dimension))
        size += dimension
    end
    push!(side.sizes, size)
end

"""
All blocks of `tensor` in the given order of indices, as (sectors, array of `D` dimensions).
Absent indices of the order are nothing: sector 1 of dimension 1.
"""
function blocks_in_order(tensor::ITensor, order::Tuple{Vararg{Any,D}}) where {D}
    permuted = ITensors.permute(tensor, filter(!isnothing, order)...)
    return ordered(ITensors.tensor(permuted), map(!isnothing, order))
end

function ordered(data, present::NTuple{D,Bool}) where {D}
    result = Blocks{D}()
    for block in NDTensors.nzblocks(data)
        values = copy(NDTensors.array(NDTensors.blockview(data, block)))
        sectors, sizes = expand(Tuple(block), present), expand(size(values), present)
        push!(result, (sectors, reshape(values, sizes)))
    end
    return result
end

"""Insert ones into `numbers` where an index is absent."""
function expand(numbers, present::NTuple{D,Bool}) where {D}
    place(d) = sum(ntuple(i -> i <= d && present[i], Val(D)))
    return ntuple(d -> present[d] ? Int(numbers[place(d)]) : 1, Val(D))
end

"""The block-sparse ITensor with these (sectors, array of the block's size in any shape)."""
function tensor_of(blocks, indices)
    places = [NDTensors.Block(Int.(Tuple(sectors))...) for (sectors, _) in blocks]
    data = NDTensors.BlockSparseTensor(Float64, places, Tuple(indices))
    for (place, (_, values)) in zip(places, blocks)
        target = NDTensors.blockview(data, place)
        copyto!(NDTensors.array(target), values)
    end
    return itensor(data)
end
