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

"""Everything that must be the same for a job to begin from the state of another one."""
sector_of(job::Job) = "$(job.n_up) up, $(job.n_down) down, sites $(job.order)"

function save_checkpoint(job::Job, record)
    write_atomically(checkpoint_file(job)) do stream
        serialize(stream, identity_of(job))
        serialize(stream, sector_of(job))
        serialize(stream, record)
        # a checksum ends the file, for those who begin from a copy of it
        size = position(stream)
        seekstart(stream)
        checksum = crc32(stream, size)
        seek(stream, size)
        write(stream, htol(checksum))
    end
end

"""What of the identity says by which versions a file was written."""
const VERSION_LINES = 1:4

start_file(job::Job) = joinpath(job.directory, "start")

"""
The state that another run left for this job, or nothing. One that cannot be used is reported; what
is damaged or was written by other versions is not even deserialized.
"""
function load_start(job::Job)
    isfile(start_file(job)) || return nothing
    psi, problem = try
        open(stream -> read_start(stream, job), start_file(job))
    catch exception
        exception isa InterruptException && rethrow()
        nothing, "it is incomplete, or of another version"
    end
    isnothing(psi) && report(job; step = "ignored", problem)
    return psi
end

"""(state, nothing), or (nothing, why there is none)."""
function read_start(stream::IO, job::Job)
    size = filesize(stream) - sizeof(UInt32)
    checksum = crc32(stream, size)
    checksum == ltoh(read(stream, UInt32)) || return nothing, "it is damaged"
    seekstart(stream)
    versions(identity) = split(identity, '\n')[VERSION_LINES]
    versions(deserialize(stream)) == versions(identity_of(job)) ||
        return nothing, "it is incomplete, or of another version"
    deserialize(stream) == sector_of(job) ||
        return nothing, "it belongs to another length or number of electrons"
    return deserialize(stream).psi, nothing
end

"""The stored record, or nothing."""
function load_checkpoint(job::Job)
    file = checkpoint_file(job)
    isfile(file) || return nothing
    try
        return open(file) do stream
            # the identity comes first: what other versions wrote is not even looked at
            deserialize(stream) == identity_of(job) || return nothing
            deserialize(stream)  # the sector, which the identity holds, too
            deserialize(stream)
        end
    catch problem
        problem isa InterruptException && rethrow()
        @warn "checkpoint.jls cannot be read; the search starts from the beginning" problem
        return nothing
    end
end
