-- enrollments: one row per student and batch for ever; a re-enrolment revives it. attendance hangs on it.

CREATE TABLE enrollments (
    id              uuid        CONSTRAINT enrollments_pkey PRIMARY KEY,
    student_id      uuid        NOT NULL CONSTRAINT enrollments_student_id_fkey REFERENCES users (id),
    batch_id        uuid        NOT NULL CONSTRAINT enrollments_batch_id_fkey REFERENCES batches (id),
    registration_id uuid        CONSTRAINT enrollments_registration_id_key UNIQUE
                                CONSTRAINT enrollments_registration_id_fkey REFERENCES student_registrations (id),
    status          text        NOT NULL CONSTRAINT enrollments_status_check
                                CHECK (status IN ('active', 'suspended', 'completed', 'withdrawn', 'transferred')),
    enrolled_at     timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    end_reason      text,
    operation_id    uuid        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT enrollments_student_batch_key UNIQUE (student_id, batch_id),
    CONSTRAINT enrollments_ended_check CHECK ((ended_at IS NULL) = (status IN ('active', 'suspended')))
);

CREATE INDEX enrollments_batch_status_idx ON enrollments (batch_id, status);


CREATE TABLE attendance (
    id           uuid        CONSTRAINT attendance_pkey PRIMARY KEY,
    student_id   uuid        NOT NULL,
    batch_id     uuid        NOT NULL,
    date         date        NOT NULL,
    status       text        NOT NULL CONSTRAINT attendance_status_check CHECK (status IN ('present', 'absent', 'late', 'excused')),
    check_in_at  timestamptz,
    marked_by    uuid        NOT NULL CONSTRAINT attendance_marked_by_fkey REFERENCES users (id),
    remark       text,
    operation_id uuid        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT attendance_student_batch_date_key UNIQUE (student_id, batch_id, date),
    CONSTRAINT attendance_enrollment_fkey FOREIGN KEY (student_id, batch_id) REFERENCES enrollments (student_id, batch_id)
);

CREATE INDEX attendance_batch_date_idx ON attendance (batch_id, date);
CREATE INDEX attendance_marked_by_idx ON attendance (marked_by);
