-- From schema version 2 to 3: room for what schema.sql then makes anew. (IF EXISTS: from version 1 schema_2.sql has made
-- room already.)
DROP VIEW IF EXISTS sweep_summary; -- had plans of one size as one
DROP VIEW IF EXISTS best_runs; -- had no verdict
DROP VIEW IF EXISTS eval_sample; -- knew nothing of pass@k
ALTER TABLE eval_completion ADD COLUMN finish TEXT;
