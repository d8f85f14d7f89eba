-- MySQL 8.2 or later: what a restore (--allow-restore, POST /v1/restore) needs beyond the grants of
-- mysql-logical.sql. Tested with MySQL 9. MySQL 8.0 has SET_USER_ID instead of SET_ANY_DEFINER and
-- ALLOW_NONEXISTENT_DEFINER. Each of these is asked for before a restore that needs it. Instead of *.* in
-- the first statement the databases that may be restored can be named.
GRANT SELECT, INSERT,      -- rows
      CREATE, DROP, ALTER, REFERENCES, LOCK TABLES, CREATE VIEW,
      TRIGGER,                       -- only with triggers
      CREATE ROUTINE, ALTER ROUTINE, -- only with routines
      EVENT                          -- only with events
   ON *.* TO 'towline'@'localhost';
GRANT SYSTEM_USER,         -- only with definers kept: those whose account not everybody may change, as root's
      SUPER                -- only beside a binary log: create triggers and functions. Better is
                           -- log_bin_trust_function_creators = 1, and the next statement in its place
   ON *.* TO 'towline'@'localhost';
GRANT SET_ANY_DEFINER,           -- only with definers kept, without SUPER: of views, routines, triggers, events
      ALLOW_NONEXISTENT_DEFINER  -- only with definers kept, without SUPER: whose account is not here (yet)
   ON *.* TO 'towline'@'localhost';
-- To leave the binary log out (binaryLog: false), without SUPER:
--   GRANT SESSION_VARIABLES_ADMIN ON *.* TO 'towline'@'localhost';
-- To set the GTIDs (gtidPurged), without SUPER:
--   GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO 'towline'@'localhost';
-- To restore accounts (includeUsers); nobody can grant what he does not have:
--   GRANT ALL PRIVILEGES ON *.* TO 'towline'@'localhost' WITH GRANT OPTION;
--   GRANT PROXY ON ''@'' TO 'towline'@'localhost' WITH GRANT OPTION;
