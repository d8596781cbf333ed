-- What teachers give and students hand in.

CREATE TABLE study_materials (
    id           uuid        CONSTRAINT study_materials_pkey PRIMARY KEY,
    course_id    uuid        NOT NULL CONSTRAINT study_materials_course_id_fkey REFERENCES courses (id),
    batch_id     uuid        CONSTRAINT study_materials_batch_id_fkey REFERENCES batches (id),  -- null: every batch of the course
    title        text        NOT NULL,
    kind         text        NOT NULL CONSTRAINT study_materials_kind_check
                             CHECK (kind IN ('document', 'slides', 'video', 'audio', 'link', 'other')),
    url          text        CONSTRAINT study_materials_url_check CHECK (url ~* '^https?://'),
    file_id      uuid        CONSTRAINT study_materials_file_id_fkey REFERENCES files (id),
    visible_from timestamptz,
    position     integer     NOT NULL DEFAULT 0,
    uploaded_by  uuid        NOT NULL CONSTRAINT study_materials_uploaded_by_fkey REFERENCES users (id),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz,
    CONSTRAINT study_materials_source_check CHECK (num_nonnulls(url, file_id) = 1)
);

CREATE INDEX study_materials_course_position_idx ON study_materials (course_id, position);
CREATE INDEX study_materials_batch_id_idx ON study_materials (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX study_materials_file_id_idx ON study_materials (file_id) WHERE file_id IS NOT NULL;
CREATE INDEX study_materials_uploaded_by_idx ON study_materials (uploaded_by);

CREATE TRIGGER study_materials_touch BEFORE UPDATE ON study_materials
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();


CREATE TABLE assignments (
    id           uuid         CONSTRAINT assignments_pkey PRIMARY KEY,
    batch_id     uuid         NOT NULL CONSTRAINT assignments_batch_id_fkey REFERENCES batches (id),
    title        text         NOT NULL,
    instructions text         NOT NULL,
    max_score    numeric(6,2) NOT NULL CONSTRAINT assignments_max_score_check CHECK (max_score > 0),
    due_at       timestamptz  NOT NULL,
    late_until   timestamptz,
    status       text         NOT NULL CONSTRAINT assignments_status_check CHECK (status IN ('draft', 'published', 'closed')),
    created_by   uuid         NOT NULL CONSTRAINT assignments_created_by_fkey REFERENCES users (id),
    created_at   timestamptz  NOT NULL DEFAULT now(),
    updated_at   timestamptz  NOT NULL DEFAULT now(),
    deleted_at   timestamptz,
    CONSTRAINT assignments_late_check CHECK (late_until >= due_at),
    CONSTRAINT assignments_id_max_score_key UNIQUE (id, max_score)
);

CREATE INDEX assignments_batch_due_at_idx ON assignments (batch_id, due_at);
CREATE INDEX assignments_created_by_idx ON assignments (created_by);

CREATE TRIGGER assignments_touch BEFORE UPDATE ON assignments
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();


-- max_score is the assignment's, kept equal by the foreign key: so a CHECK can bound the score, also when the
-- assignment's own bound is lowered later.
CREATE TABLE assignment_submissions (
    id            uuid         CONSTRAINT submissions_pkey PRIMARY KEY,
    assignment_id uuid         NOT NULL,
    student_id    uuid         NOT NULL CONSTRAINT submissions_student_id_fkey REFERENCES users (id),
    attempt       integer      NOT NULL DEFAULT 1 CONSTRAINT submissions_attempt_check CHECK (attempt > 0),
    status        text         NOT NULL CONSTRAINT submissions_status_check CHECK (status IN ('submitted', 'late', 'graded', 'returned')),
    content       text,
    file_id       uuid         CONSTRAINT submissions_file_id_fkey REFERENCES files (id),
    submitted_at  timestamptz  NOT NULL,
    max_score     numeric(6,2) NOT NULL,
    score         numeric(6,2),
    feedback      text,
    graded_by     uuid         CONSTRAINT submissions_graded_by_fkey REFERENCES users (id),
    graded_at     timestamptz,
    operation_id  uuid         NOT NULL,
    created_at    timestamptz  NOT NULL DEFAULT now(),
    updated_at    timestamptz  NOT NULL DEFAULT now(),
    CONSTRAINT submissions_assignment_student_key UNIQUE (assignment_id, student_id),
    CONSTRAINT submissions_assignment_fkey FOREIGN KEY (assignment_id, max_score)
        REFERENCES assignments (id, max_score) ON UPDATE CASCADE,
    CONSTRAINT submissions_content_check CHECK (num_nonnulls(content, file_id) > 0),
    CONSTRAINT submissions_score_check CHECK (score BETWEEN 0 AND max_score)
);

CREATE INDEX submissions_student_id_idx ON assignment_submissions (student_id, id DESC);
CREATE INDEX submissions_file_id_idx ON assignment_submissions (file_id) WHERE file_id IS NOT NULL;
CREATE INDEX submissions_graded_by_idx ON assignment_submissions (graded_by) WHERE graded_by IS NOT NULL;
