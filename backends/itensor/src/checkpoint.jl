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

"""What of the identity says by which versions a file was written."""
const VERSION_LINES = 1:4

"""
The state that another run left for this job in the file `start`, or nothing: if there is none, if
other versions wrote it, or if it is one of another length or other particle numbers.
"""
function load_start(job::Job)
    file = joinpath(job.directory, "start")
    isfile(file) || return nothing
    lines(identity) = split(identity, '\n')[VERSION_LINES]
    try
        psi = open(file) do stream
            lines(deserialize(stream)) == lines(identity_of(job)) || return nothing
            deserialize(stream).psi
        end
        isnothing(psi) && return nothing
        sector = QN(("Nf", job.n_up + job.n_down, -1), ("Sz", job.n_up - job.n_down))
        return length(psi) == n_sites(job) && flux(psi) == sector ? psi : nothing
    catch problem
        problem isa InterruptException && rethrow()
        @warn "the state in `start` cannot be read; the search starts from a random one" problem
        return nothing
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
