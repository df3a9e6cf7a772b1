CREATE TABLE entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    written_at timestamptz NOT NULL DEFAULT now(),
    method text NOT NULL,
    path text NOT NULL,
    status smallint NOT NULL,
    content_type text NOT NULL,
    -- As it came: text could not hold every byte.
    answer bytea NOT NULL,
    -- What a search looks through: method, path and answer, folded to one case.
    searchable text NOT NULL
);
