-- From schema version 1 to 2: room for what schema.sql then makes anew. Version 1 wrote no surfaces; a file in which
-- someone else did is left as it is.
CREATE TABLE guard (
    n INTEGER CONSTRAINT "version 1 wrote no surfaces, but there are rows in its tables of them" CHECK (n = 0)
);
INSERT INTO guard SELECT (SELECT count(*) FROM surface) + (SELECT count(*) FROM surface_row) +
                         (SELECT count(*) FROM surface_point);
DROP TABLE guard;
DROP VIEW run_list;
DROP VIEW best_runs;
DROP VIEW sweep_summary;
DROP VIEW eval_sample;
DROP VIEW learning_curve;
DROP VIEW surface_grid;
DROP VIEW run_show;
DROP TABLE surface_point;
DROP TABLE surface_row;
DROP TABLE surface;
ALTER TABLE event ADD COLUMN surface_id TEXT REFERENCES surface(surface_id);
