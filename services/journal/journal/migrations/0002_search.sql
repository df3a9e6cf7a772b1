-- Finds any part of a text without reading every entry.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE INDEX entries_searchable ON entries USING gin (searchable gin_trgm_ops);
