# Lowest eigenvector of a symmetric operator on plain vectors.

"""
    davidson(apply!, diagonal, start; tolerance, iterations, subspace)

Return (eigenvalue, eigenvector, residual norm, products with the operator).

`apply!(y, x)` sets `y = A x`. The correction is the residual divided by `diagonal - eigenvalue`
(Davidson, J. Comput. Phys. 17, 87 (1975)); the subspace is collapsed onto the current vector when
it is full.
"""
function davidson(
    apply!,
    diagonal::Vector{Float64},
    start::Vector{Float64};
    tolerance::Float64,
    iterations::Int,
    subspace::Int = 16,
)
    n = length(start)
    size = min(subspace, n)
    basis, images = Matrix{Float64}(undef, n, size), Matrix{Float64}(undef, n, size)
    projected = zeros(size, size)
    x = start / norm(start)
    image, direction = similar(x), copy(x)
    value, error, products, k = Inf, Inf, 0, 0
    while true
        k += 1
        basis[:, k] = direction
        apply!(view(images, :, k), direction)
        products += 1
        mul!(view(projected, 1:k, k), view(basis, :, 1:k)', view(images, :, k))
        projected[k, 1:k] = projected[1:k, k]
        values, vectors = eigen(Symmetric(projected[1:k, 1:k]))
        value = values[1]
        mul!(x, view(basis, :, 1:k), vectors[:, 1])
        mul!(image, view(images, :, 1:k), vectors[:, 1])
        isfinite(value) || throw(DomainError(value, "the energy became NaN or infinite"))
        residual = image - value * x
        error = norm(residual)
        (error <= tolerance || products >= iterations || k == n) && break
        if k == size
            basis[:, 1], images[:, 1] = x, image
            projected[1, 1] = value
            k = 1
        end
        for i in eachindex(residual)
            distance = diagonal[i] - value
            abs(distance) < 1e-2 && (distance = copysign(1e-2, distance))
            direction[i] = residual[i] / distance
        end
        known = view(basis, :, 1:k)
        length_before = norm(direction)
        for _ in 1:2
            direction .-= known * (known' * direction)
        end
        remaining = norm(direction)
        remaining <= 1e-12 * length_before && break
        direction ./= remaining
    end
    return value, x, error, products
end
