-- The database's two application roles are the operator's to create: they are shared by the whole cluster and
-- have passwords. Every later migration may rely on them.

DO $$
DECLARE
    missing text;
BEGIN
    SELECT string_agg(wanted.name, ', ') INTO missing
      FROM (VALUES ('registrar_gateway'), ('registrar_workers')) AS wanted (name)
     WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name);

    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'missing database role(s): %', missing
        USING ERRCODE = 'undefined_object',
              HINT = 'As a role with CREATEROLE: '
                  || 'CREATE ROLE registrar_gateway LOGIN PASSWORD ''...''; '
                  || 'CREATE ROLE registrar_workers LOGIN PASSWORD ''...'';';
    END IF;
END
$$;

-- Mail addresses compare without case. A trusted extension: the database's owner may create it.
CREATE EXTENSION IF NOT EXISTS citext;

-- A role reaches only what the last migration grants it by name.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
