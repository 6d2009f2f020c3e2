-- From schema version 2 to 3: room for what schema.sql then makes anew. (IF EXISTS: from version 1 schema_2.sql has made
-- room already.)
DROP VIEW IF EXISTS sweep_summary; -- had plans of one size as one
