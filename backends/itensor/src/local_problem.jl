# The two-site problem of one bond, written out in dense blocks.
#
# A block-sparse contraction of small blocks costs bookkeeping, not arithmetic: at bond dimension
# 100 the product H * phi takes 6 ms as four ITensor contractions and 0.2 ms as a list of matrix
# products. Up to DENSE_BOND the operator is therefore taken apart once per bond; beyond it the
# four contractions win, because they do less arithmetic (measured: even at 1200).

"""Bond dimension up to which the local operator is taken apart into matrix products."""
const DENSE_BOND = 1000

"""One contribution to H * phi: block `out` += left * (block `in`) * right."""
struct Product
    out::Int
    in::Int
    left::Matrix{Float64}
    right::Matrix{Float64}
    left_first::Bool
end

"""
The local problem at one bond: `apply!(y, problem, x)` on vectors that hold the blocks one after
the other.
"""
struct LocalProblem
    indices::Vector{Index}       # (link, site, site, link); a missing link has dimension 1
    present::Vector{Int}         # which of the four exist
    flux::QN
    fine::Vector{NTuple{4,Int}}  # all allowed (link, site, site, link) sectors
    rows::Side
    columns::Side
    ranges::Vector{UnitRange{Int}}
    shapes::Vector{NTuple{2,Int}}
    products::Vector{Product}
    lefts::Dict{NTuple{3,Int},Matrix{Float64}}   # by (out, in, channel); the noise needs them
    rights::Dict{NTuple{3,Int},Matrix{Float64}}
    scratch::Vector{Float64}
    operator::Any                # ITensorMPS's own operator, where the bond is too large
    lifted::Vector{Vector{Float64}}
    weight::Float64
end

"""
    local_problem(environment, psi, bond, dense)

The problem of sites `bond` and `bond + 1`, and the vector of their present state; `environment`
(ProjMPO or ProjMPO_MPS) stands there.
"""
function local_problem(environment, psi::MPS, bond::Int, dense::Bool)
    phi = psi[bond] * psi[bond + 1]
    sites = (siteind(psi, bond), siteind(psi, bond + 1))
    kinds = [linkind(psi, bond - 1), sites..., linkind(psi, bond + 1)]
    present = findall(!isnothing, kinds)
    # with the arrows they have in phi
    indices = Index[k in present ? inds(phi; id = id(kinds[k]))[1] : Index(QN() => 1) for k in 1:4]
    charge = flux(phi)
    fine, rows, columns = sides(indices, charge)
    shapes = collect(zip(rows.sizes, columns.sizes))
    stops = cumsum(prod.(shapes))
    ranges = [(stop - prod(shape) + 1):stop for (stop, shape) in zip(stops, shapes)]
    mpo_part, projections, weight = parts(environment)
    lefts, rights = Dict{NTuple{3,Int},Matrix{Float64}}(), Dict{NTuple{3,Int},Matrix{Float64}}()
    products, room = Product[], 0
    if dense
        here, next = mpo_part.H[bond], mpo_part.H[bond + 1]
        channel = commonind(here, next)
        lefts = half(ITensorMPS.lproj(mpo_part), here, indices[1], indices[2], channel, rows, false)
        rights =
            half(ITensorMPS.rproj(mpo_part), next, indices[4], indices[3], channel, columns, true)
        products = matching(lefts, rights)
        room = maximum(products; init = 0) do p
            p.left_first ? size(p.left, 1) * shapes[p.in][2] : shapes[p.in][1] * size(p.right, 2)
        end
    end
    problem = LocalProblem(
        indices, present, charge, fine, rows, columns, ranges, shapes, products, lefts, rights,
        zeros(room), dense ? nothing : mpo_part, Vector{Float64}[], weight,
    )
    for projection in projections
        push!(problem.lifted, to_vector(problem, projected_state(projection)))
    end
    return problem, to_vector(problem, phi)
end

parts(environment::Union{ProjMPO,ITensorMPS.DiskProjMPO}) = environment, (), 0.0
parts(environment::ITensorMPS.ProjMPO_MPS) = environment.PH, environment.pm, environment.weight

"""The part of a state to project out that lives on the two sites."""
function projected_state(projection)
    place = ITensorMPS.site_range(projection)
    tensors = [dag(prime(projection.M[k], "Link")) for k in (first(place), last(place))]
    left, right = ITensorMPS.lproj(projection), ITensorMPS.rproj(projection)
    isnothing(left) || (tensors[1] *= left)
    isnothing(right) || (tensors[2] *= right)
    return noprime(dag(tensors[1] * tensors[2]))
end

"""
Half of the local operator: environment times the MPO tensor of its site, as blocks
(out, in, channel) of a matrix in the space of `side`. Site sectors have dimension 1.
"""
function half(environment, tensor, link, site, channel, side::Side, transposed::Bool)
    edge = !(environment isa ITensor)
    inner = edge ? nothing : commonind(environment, tensor)
    around =
        edge ? [((1, 1, 1), ones(1, 1, 1))] :
        blocks_in_order(environment, (link', dag(link), inner))
    elements = blocks_in_order(tensor, (site', dag(site), channel, inner))
    return half(around, elements, channel_numbers(channel), side, transposed)
end

function half(around::Blocks{3}, elements::Blocks{4}, channels, side::Side, transposed::Bool)
    blocks = Dict{NTuple{3,Int},Matrix{Float64}}()
    by_inner = Dict{Int,Blocks{4}}()
    for element in elements
        push!(get!(() -> Blocks{4}(), by_inner, element[1][4]), element)
    end
    for ((l_out, l_in, k), values) in around, ((s_out, s_in, c, _), numbers) in by_inner[k]
        out_key = transposed ? (s_out, l_out) : (l_out, s_out)
        in_key = transposed ? (s_in, l_in) : (l_in, s_in)
        haskey(side.place, out_key) && haskey(side.place, in_key) || continue
        (out, out_range), (in, in_range) = side.place[out_key], side.place[in_key]
        for w in axes(numbers, 3)
            matrix = get!(blocks, (out, in, channels[c] + w)) do
                zeros(side.sizes[out], side.sizes[in])
            end
            target = view(matrix, out_range, in_range)
            for v in axes(numbers, 4)
                number = numbers[1, 1, w, v]
                number == 0 || (target .+= number .* view(values, :, :, v))
            end
        end
    end
    return blocks
end

"""Number of the states of `channel` before each of its sectors."""
channel_numbers(channel) =
    cumsum([0; [ITensors.blockdim(channel, k) for k in 1:(ITensors.nblocks(channel) - 1)]])

function matching(lefts, rights)
    products = Product[]
    # sorted: results must not depend on the order of a dictionary
    for key in sort!(collect(keys(lefts)))
        haskey(rights, key) || continue
        out, in, _ = key
        left, right = lefts[key], permutedims(rights[key])
        (m_out, m_in), (n_in, n_out) = size(left), size(right)
        left_first = m_out * n_in * (m_in + n_out) <= m_in * n_out * (n_in + m_out)
        push!(products, Product(out, in, left, right, left_first))
    end
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
                between = reshape(view(problem.scratch, 1:prod(shape)), shape)
                mul!(between, p.left, input)
                mul!(output, between, p.right, 1.0, 1.0)
            else
                shape = (size(input, 1), size(p.right, 2))
                between = reshape(view(problem.scratch, 1:prod(shape)), shape)
                mul!(between, input, p.right)
                mul!(output, p.left, between, 1.0, 1.0)
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

"""The part of `vector` that belongs to the sectors (l, s, t, r)."""
function fine_view(problem::LocalProblem, vector, (l, s, t, r))
    block, rows = problem.rows.place[(l, s)]
    _, columns = problem.columns.place[(t, r)]
    return view(reshape(view(vector, problem.ranges[block]), problem.shapes[block]), rows, columns)
end

"""The vector of a two-site tensor."""
function to_vector(problem::LocalProblem, phi::ITensor)
    vector = zeros(last(last(problem.ranges)))
    order = ntuple(k -> k in problem.present ? problem.indices[k] : nothing, 4)
    for (sectors, values) in blocks_in_order(phi, order)
        target = fine_view(problem, vector, sectors)
        target .= reshape(values, size(target))
    end
    return vector
end

"""The two-site tensor of a vector; the inverse of `to_vector`."""
function to_tensor(problem::LocalProblem, vector::AbstractVector{Float64})
    blocks = map(problem.fine) do sectors
        (sectors[problem.present], fine_view(problem, vector, sectors))
    end
    return tensor_of(blocks, problem.indices[problem.present])
end
