# The two-site problem of one bond, written out in dense blocks.
#
# A block-sparse contraction of small blocks costs bookkeeping, not arithmetic: at bond dimension
# 100 the product H * phi takes 7 ms as four ITensor contractions and a fraction of a millisecond
# as a list of matrix products. Below DENSE_BOND the operator is therefore taken apart once per
# bond; above it the four contractions win, because they do less arithmetic.

"""Bond dimension up to which the local operator is taken apart into matrix products."""
const DENSE_BOND = 400

"""One contribution to H * phi: block `out` += left * (block `in`) * right."""
struct Product
    out::Int
    in::Int
    left::Matrix{Float64}
    right::Matrix{Float64}
    left_first::Bool
end

"""
The local problem at one bond: `apply!(y, problem, x)` on vectors that hold the blocks of the
two-site tensor one after the other.
"""
struct LocalProblem
    template::ITensor            # all blocks that the charge allows
    blocks::Vector{Any}          # their positions in the tensor
    ranges::Vector{UnitRange{Int}}
    shapes::Vector{NTuple{2,Int}}
    products::Vector{Product}
    scratch::Vector{Float64}
    operator::Any                # ITensorMPS's own operator, where the bond is too large
    left::ITensor                # combiners: (link, site) -> one index
    right::ITensor
    lifted::Vector{Vector{Float64}}
    weight::Float64
end

"""
    local_problem(environment, psi, bond, dense)

The problem of sites `bond` and `bond + 1`; `environment` (ProjMPO or ProjMPO_MPS) stands there.
"""
function local_problem(environment, psi::MPS, bond::Int, dense::Bool)
    phi = psi[bond] * psi[bond + 1]
    left = combiner(commoninds(phi, psi[bond]); tags = "left")
    right = combiner(commoninds(phi, psi[bond + 1]); tags = "right")
    row, column = combinedind(left), combinedind(right)
    template = ITensor(Float64, flux(phi), row, column)
    # a block (row sector, column sector); every row sector has at most one
    blocks = collect(Any, ITensors.nzblocks(template))
    shapes = [size(block_of(template, block)) for block in blocks]
    stops = cumsum(prod.(shapes))
    ranges = [(stop - prod(shape) + 1):stop for (stop, shape) in zip(stops, shapes)]
    projections, mpo_part = parts(environment)
    products, room = Product[], 0
    if dense
        products = dense_products(mpo_part, bond, left, right, blocks, template)
        room = maximum(products; init = 0) do p
            p.left_first ? size(p.left, 1) * shapes[p.in][2] : shapes[p.in][1] * size(p.right, 2)
        end
    end
    problem = LocalProblem(
        template, blocks, ranges, shapes, products, zeros(room), dense ? nothing : mpo_part,
        left, right, Vector{Float64}[], projection_weight(environment),
    )
    for projection in projections
        push!(problem.lifted, to_vector(problem, projected_state(projection)))
    end
    return problem, to_vector(problem, phi)
end

parts(environment::ProjMPO) = (), environment
parts(environment::ITensorMPS.ProjMPO_MPS) = environment.pm, environment.PH
projection_weight(::ProjMPO) = 0.0
projection_weight(environment::ITensorMPS.ProjMPO_MPS) = environment.weight

"""The part of a state to project out that lives on the two sites."""
function projected_state(projection)
    place = ITensorMPS.site_range(projection)
    tensors = [dag(prime(projection.M[k], "Link")) for k in (first(place), last(place))]
    left, right = ITensorMPS.lproj(projection), ITensorMPS.rproj(projection)
    isnothing(left) || (tensors[1] *= left)
    isnothing(right) || (tensors[2] *= right)
    return dag(tensors[1] * tensors[2])
end

"""A view of one block of a block-sparse ITensor as an array."""
block_of(tensor::ITensor, block) = Array(ITensors.NDTensors.blockview(ITensors.tensor(tensor), block))

"""All blocks of `tensor`, index order `order`, as plain arrays by their positions."""
function blocks_by_position(tensor::ITensor, order...)
    data = ITensors.tensor(ITensors.permute(tensor, order...))
    return Dict(
        Int.(Tuple(block)) => Array(ITensors.NDTensors.blockview(data, block)) for
        block in ITensors.NDTensors.nzblocks(data)
    )
end

function dense_products(environment::ProjMPO, bond, left, right, blocks, template)
    here, next = environment.H[bond], environment.H[bond + 1]
    link = commonind(here, next)
    row, column = inds(template)
    half(part, comb, index) =
        blocks_by_position((part * dag(comb)) * prime(comb), index', dag(index), link)
    lefts = half(ITensorMPS.lproj(environment) * here, left, row)
    rights = half(next * ITensorMPS.rproj(environment), right, column)
    place = Dict(Int(Tuple(block)[1]) => k for (k, block) in enumerate(blocks))
    columns = [Int(Tuple(block)[2]) for block in blocks]
    products = Product[]
    for ((out_row, in_row, channel), a) in lefts
        haskey(place, out_row) && haskey(place, in_row) || continue
        out, in = place[out_row], place[in_row]
        b = get(rights, (columns[out], columns[in], channel), nothing)
        isnothing(b) && continue
        for w in axes(a, 3)
            l, r = a[:, :, w], permutedims(b[:, :, w])
            (iszero(l) || iszero(r)) && continue
            (m_out, m_in), (n_in, n_out) = size(l), size(r)
            left_first = m_out * n_in * (m_in + n_out) <= m_in * n_out * (n_in + m_out)
            push!(products, Product(out, in, l, r, left_first))
        end
    end
    sort!(products; by = p -> (p.out, p.in))  # results must not depend on the order of a dictionary
    return products
end

"""Set `y` to the operator of `problem` applied to `x`."""
function apply!(y::AbstractVector{Float64}, problem::LocalProblem, x::AbstractVector{Float64})
    if isnothing(problem.operator)
        fill!(y, 0.0)
        for p in problem.products
            input = reshape(view(x, problem.ranges[p.in]), problem.shapes[p.in])
            output = reshape(view(y, problem.ranges[p.out]), problem.shapes[p.out])
            if p.left_first
                shape = (size(p.left, 1), size(input, 2))
                half = reshape(view(problem.scratch, 1:prod(shape)), shape)
                mul!(half, p.left, input)
                mul!(output, half, p.right, 1.0, 1.0)
            else
                shape = (size(input, 1), size(p.right, 2))
                half = reshape(view(problem.scratch, 1:prod(shape)), shape)
                mul!(half, input, p.right)
                mul!(output, p.left, half, 1.0, 1.0)
            end
        end
    else
        y .= to_vector(problem, ITensorMPS.product(problem.operator, to_tensor(problem, x)))
    end
    for state in problem.lifted
        y .+= (problem.weight * dot(state, x)) .* state
    end
    return y
end

"""Diagonal of the operator; zero where it was not taken apart (Davidson then is Lanczos)."""
function diagonal(problem::LocalProblem)
    result = zeros(last(last(problem.ranges)))
    for p in problem.products
        p.in == p.out || continue
        block = reshape(view(result, problem.ranges[p.in]), problem.shapes[p.in])
        block .+= diag(p.left) .* diag(p.right)'
    end
    for state in problem.lifted
        result .+= problem.weight .* state .^ 2
    end
    return result
end

"""The vector of a two-site tensor with link and site indices."""
function to_vector(problem::LocalProblem, phi::ITensor)
    combined = ITensors.permute(
        (phi * problem.left) * problem.right, inds(problem.template)...
    )
    data = ITensors.tensor(combined)
    vector = zeros(last(last(problem.ranges)))
    known = Set(ITensors.NDTensors.nzblocks(data))
    for (block, range) in zip(problem.blocks, problem.ranges)
        block in known || continue
        vector[range] .= vec(Array(ITensors.NDTensors.blockview(data, block)))
    end
    return vector
end

"""The two-site tensor of a vector; the inverse of `to_vector`."""
function to_tensor(problem::LocalProblem, vector::AbstractVector{Float64})
    combined = copy(problem.template)
    data = ITensors.tensor(combined)
    for (block, range, shape) in zip(problem.blocks, problem.ranges, problem.shapes)
        ITensors.NDTensors.blockview(data, block) .= reshape(view(vector, range), shape)
    end
    return (combined * dag(problem.left)) * dag(problem.right)
end
