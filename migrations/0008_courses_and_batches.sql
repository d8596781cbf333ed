-- courses: what is taught. batches: when, by whom, and for how many; their counters are the seat ledger.

CREATE TABLE courses (
    id             uuid          CONSTRAINT courses_pkey PRIMARY KEY,
    code           text          NOT NULL,
    slug           text          NOT NULL,
    title          text          NOT NULL,
    description    text          NOT NULL,
    category       text,
    duration_weeks integer       NOT NULL CONSTRAINT courses_duration_check CHECK (duration_weeks > 0),
    base_fee       numeric(14,2) NOT NULL CONSTRAINT courses_fee_check CHECK (base_fee >= 0),
    currency       char(3)       NOT NULL CONSTRAINT courses_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    tax_rate       numeric(5,2)  NOT NULL CONSTRAINT courses_tax_rate_check CHECK (tax_rate BETWEEN 0 AND 100),  -- per cent
    status         text          NOT NULL CONSTRAINT courses_status_check CHECK (status IN ('draft', 'published', 'archived')),
    created_by     uuid          NOT NULL CONSTRAINT courses_created_by_fkey REFERENCES users (id),
    created_at     timestamptz   NOT NULL DEFAULT now(),
    updated_at     timestamptz   NOT NULL DEFAULT now(),
    deleted_at     timestamptz
);

CREATE UNIQUE INDEX courses_code_key ON courses (code) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX courses_slug_key ON courses (slug) WHERE deleted_at IS NULL;
CREATE INDEX courses_created_by_idx ON courses (created_by);

CREATE TRIGGER courses_touch BEFORE UPDATE ON courses
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();


-- No index bears a counter, and pages keep room: taking a seat stays a heap-only update of the hottest rows there are.
CREATE TABLE batches (
    id                uuid          CONSTRAINT batches_pkey PRIMARY KEY,
    course_id         uuid          NOT NULL CONSTRAINT batches_course_id_fkey REFERENCES courses (id),
    code              text          NOT NULL,
    name              text          NOT NULL,
    instructor_id     uuid          CONSTRAINT batches_instructor_id_fkey REFERENCES users (id),
    mode              text          NOT NULL CONSTRAINT batches_mode_check CHECK (mode IN ('classroom', 'online', 'hybrid')),
    capacity          integer       NOT NULL,
    seats_taken       integer       NOT NULL DEFAULT 0,
    waitlist_capacity integer       NOT NULL DEFAULT 0,
    waitlist_taken    integer       NOT NULL DEFAULT 0,
    next_waitlist_seq bigint        NOT NULL DEFAULT 1,
    start_date        date          NOT NULL,
    end_date          date          NOT NULL,
    opens_at          timestamptz   NOT NULL,
    closes_at         timestamptz   NOT NULL,
    confirm_minutes   integer       NOT NULL,      -- a provisional hold's life, until the mailed link is opened
    hold_minutes      integer       NOT NULL,      -- a hold's life, until payment is submitted
    fee               numeric(14,2),               -- null: the course's base fee
    deposit           numeric(14,2),               -- null: confirmed only when all is paid
    requires_review   boolean       NOT NULL DEFAULT false,
    schedule          jsonb         NOT NULL DEFAULT '{}',
    status            text          NOT NULL CONSTRAINT batches_status_check
                                    CHECK (status IN ('draft', 'open', 'closed', 'completed', 'cancelled')),
    created_at        timestamptz   NOT NULL DEFAULT now(),
    updated_at        timestamptz   NOT NULL DEFAULT now(),
    deleted_at        timestamptz,
    CONSTRAINT batches_seats_check    CHECK (seats_taken BETWEEN 0 AND capacity),
    CONSTRAINT batches_waitlist_check CHECK (waitlist_taken BETWEEN 0 AND waitlist_capacity),
    CONSTRAINT batches_dates_check    CHECK (start_date <= end_date),
    CONSTRAINT batches_window_check   CHECK (opens_at < closes_at),
    CONSTRAINT batches_minutes_check  CHECK (confirm_minutes > 0 AND hold_minutes > 0),
    CONSTRAINT batches_fee_check      CHECK (fee >= 0 AND deposit >= 0 AND deposit <= fee)
) WITH (fillfactor = 90);

CREATE UNIQUE INDEX batches_course_code_key ON batches (course_id, code) WHERE deleted_at IS NULL;
CREATE INDEX batches_status_opens_at_idx ON batches (status, opens_at);
CREATE INDEX batches_course_status_start_idx ON batches (course_id, status, start_date);
CREATE INDEX batches_instructor_id_idx ON batches (instructor_id) WHERE instructor_id IS NOT NULL;
