# Progress: one JSON object per line, numbers and our own names only.

json(value::Integer) = string(value)
json(value::Real) = isfinite(value) ? string(Float64(value)) : "null"
json(value::AbstractString) = '"' * value * '"'

"""Append one event to `progress.jsonl`."""
function report(job::Job; event...)
    line = "{" * join(("\"$name\": $(json(value))" for (name, value) in event), ", ") * "}\n"
    open(stream -> write(stream, line), joinpath(job.directory, "progress.jsonl"), "a")
    return nothing
end
