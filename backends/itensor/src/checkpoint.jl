# Checkpoints: the state and where the search stands, replaced by rename after every sweep.
#
# Julia's own serialization, since HDF5 is a binary dependency. It is read by the same versions of
# Julia and ITensors only, and only for the same job; anything else starts from the beginning.

using Serialization

checkpoint_file(job::Job) = joinpath(job.directory, "checkpoint.jls")

"""Everything that must be the same for a checkpoint to be continued."""
identity_of(job::Job) = join(
    (VERSION, pkgversion(ITensors), pkgversion(ITensorMPS), pkgversion(@__MODULE__), job.text,
     sort!(["$key=$value" for (key, value) in job.settings])),
    '\n',
)

function save_checkpoint(job::Job, record)
    write_atomically(checkpoint_file(job)) do stream
        serialize(stream, identity_of(job))
        serialize(stream, record)
    end
end

"""The stored record, or nothing."""
function load_checkpoint(job::Job)
    file = checkpoint_file(job)
    isfile(file) || return nothing
    try
        return open(file) do stream
            # the identity comes first: what other versions wrote is not even looked at
            deserialize(stream) == identity_of(job) ? deserialize(stream) : nothing
        end
    catch problem
        problem isa InterruptException && rethrow()
        @warn "checkpoint.jls cannot be read; the search starts from the beginning" problem
        return nothing
    end
end
