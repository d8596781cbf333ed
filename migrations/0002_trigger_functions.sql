-- Trigger functions that several tables share.

-- For tables that many statements edit. Hot tables have no such trigger: their statements set updated_at.
CREATE FUNCTION touch_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

-- For what must never change once written. The error bears the trigger's name as its constraint, like any other
-- violation that the code maps to a problem.
CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'restrict_violation',
          SCHEMA = TG_TABLE_SCHEMA,
          TABLE = TG_TABLE_NAME,
          CONSTRAINT = TG_NAME,
          HINT = format('For maintenance, the table''s owner may ALTER TABLE %I DISABLE TRIGGER %I in a transaction of its own.',
                        TG_TABLE_NAME, TG_NAME);
END
$$;
