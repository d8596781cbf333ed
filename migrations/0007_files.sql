-- files: what lies in the object store. The bytes are written first, the row last: a row always has its object.

CREATE TABLE files (
    id           uuid        CONSTRAINT files_pkey PRIMARY KEY,
    object_key   text        NOT NULL CONSTRAINT files_object_key_key UNIQUE,
    file_name    text,                             -- as uploaded; never part of the object's key
    mime         text        NOT NULL,
    size_bytes   bigint      NOT NULL CONSTRAINT files_size_check CHECK (size_bytes >= 0),
    sha256       bytea       NOT NULL CONSTRAINT files_sha256_check CHECK (octet_length(sha256) = 32),
    purpose      text        NOT NULL,
    owner_id     uuid        CONSTRAINT files_owner_id_fkey REFERENCES users (id),  -- null: the institute's own
    operation_id uuid,                             -- null where it was uploaded
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX files_owner_id_idx ON files (owner_id) WHERE owner_id IS NOT NULL;
