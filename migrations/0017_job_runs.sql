-- job_runs: imports and exports, with how far they came and what became of each row.

CREATE TABLE job_runs (
    id             uuid        CONSTRAINT job_runs_pkey PRIMARY KEY,
    kind           text        NOT NULL,
    status         text        NOT NULL CONSTRAINT job_runs_status_check CHECK (status IN ('queued', 'running', 'succeeded', 'failed')),
    requested_by   uuid        CONSTRAINT job_runs_requested_by_fkey REFERENCES users (id),  -- null: the clock
    params         jsonb       NOT NULL DEFAULT '{}',
    input_file_id  uuid        CONSTRAINT job_runs_input_file_id_fkey REFERENCES files (id),
    output_file_id uuid        CONSTRAINT job_runs_output_file_id_fkey REFERENCES files (id),
    total_rows     integer,                        -- null until the input has been counted
    done_rows      integer     NOT NULL DEFAULT 0,
    failed_rows    integer     NOT NULL DEFAULT 0,
    row_results    jsonb       NOT NULL DEFAULT '[]',
    last_error     text,
    started_at     timestamptz,
    finished_at    timestamptz,
    operation_id   uuid        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT job_runs_rows_check CHECK (failed_rows BETWEEN 0 AND done_rows AND done_rows <= total_rows),
    CONSTRAINT job_runs_finished_check CHECK ((finished_at IS NOT NULL) = (status IN ('succeeded', 'failed')))
);

CREATE INDEX job_runs_status_created_at_idx ON job_runs (status, created_at);
CREATE INDEX job_runs_requested_by_idx ON job_runs (requested_by) WHERE requested_by IS NOT NULL;
CREATE INDEX job_runs_input_file_id_idx ON job_runs (input_file_id) WHERE input_file_id IS NOT NULL;
CREATE INDEX job_runs_output_file_id_idx ON job_runs (output_file_id) WHERE output_file_id IS NOT NULL;

CREATE TRIGGER job_runs_touch BEFORE UPDATE ON job_runs
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
