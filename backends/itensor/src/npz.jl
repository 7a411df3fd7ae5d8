# Output that numpy reads: an npz file is a zip archive of npy files, here stored uncompressed.
# Written by hand because it is 60 lines, while HDF5 is a binary dependency.

const CRC_TABLE = map(UInt32(0):UInt32(255)) do k
    for _ in 1:8
        k = isodd(k) ? (k >> 1) ⊻ 0xedb88320 : k >> 1
    end
    k
end

"""Checksum of `bytes`, or of what follows on others with the checksum `before`."""
function crc32(bytes::AbstractVector{UInt8}, before::UInt32 = 0x00000000)
    crc = ~before
    for byte in bytes
        crc = CRC_TABLE[((crc ⊻ byte) & 0xff) + 1] ⊻ (crc >> 8)
    end
    return ~crc
end

"""Checksum of the next `count` bytes of `stream`."""
function crc32(stream::IO, count::Integer)
    crc, buffer = 0x00000000, Vector{UInt8}(undef, min(count, 2^20))
    while count > 0
        got = readbytes!(stream, buffer, min(count, length(buffer)))
        got == 0 && throw(EOFError())
        crc = crc32(view(buffer, 1:got), crc)
        count -= got
    end
    return crc
end

npy_type(::Type{Float64}) = "<f8"
npy_type(::Type{Int64}) = "<i8"

"""Bytes of one npy file (format 1.0, column-major, little endian)."""
function npy_bytes(array::AbstractArray{T}) where {T}
    shape = join((string(n) for n in size(array)), ", ")
    ndims(array) == 1 && (shape *= ",")
    header = "{'descr': '$(npy_type(T))', 'fortran_order': True, 'shape': ($shape), }"
    header *= ' '^mod(-(length(header) + 11), 64) * '\n'
    stream = IOBuffer()
    write(stream, b"\x93NUMPY", 0x01, 0x00, htol(UInt16(length(header))), header)
    for value in array
        write(stream, htol(value))
    end
    return take!(stream)
end

npy_bytes(number::Number) = npy_bytes(fill(number))

"""
    write_npz(path, arrays)

Write a dictionary of arrays and numbers by rename: complete or not at all.
"""
function write_npz(path::AbstractString, arrays::AbstractDict)
    write_atomically(path) do file
        directory = IOBuffer()
        for name in sort!(collect(keys(arrays)))
            data, entry, offset = npy_bytes(arrays[name]), "$name.npy", position(file)
            size = length(data)
            size < typemax(UInt32) || error("$name is too large for an npz file")
            # version, flags, stored, time and date (1980-01-01), checksum, sizes, name, no extra
            facts = IOBuffer()
            for field in (UInt16(20), UInt16(0), UInt16(0), UInt16(0), UInt16(33))
                write(facts, htol(field))
            end
            write(facts, htol(crc32(data)), htol(UInt32(size)), htol(UInt32(size)))
            write(facts, htol(UInt16(sizeof(entry))), htol(UInt16(0)))
            common = take!(facts)
            write(file, htol(0x04034b50), common, entry, data)
            # the directory's record repeats the facts between "made by" and where the file starts
            write(directory, htol(0x02014b50), htol(UInt16(20)), common)
            write(directory, zeros(UInt8, 10), htol(UInt32(offset)), entry)
        end
        start, records = position(file), take!(directory)
        count = htol(UInt16(length(arrays)))
        write(file, records, htol(0x06054b50), zeros(UInt8, 4), count, count)
        write(file, htol(UInt32(length(records))), htol(UInt32(start)), htol(UInt16(0)))
    end
end

"""Call `write_to(stream)` on a temporary file and move it to `path`."""
function write_atomically(write_to, path::AbstractString)
    temporary = path * ".tmp"
    open(temporary, "w+") do stream
        write_to(stream)
        flush(stream)
        ccall(:fsync, Cint, (Cint,), fd(stream)) == 0 || error("cannot write $path")
    end
    Base.Filesystem.rename(temporary, path)
    return nothing
end
