-- MySQL 8.2 or later: what a restore (--allow-restore, POST /v1/restore) needs beyond the grants of
-- mysql-logical.sql. Tested with MySQL 9. MySQL 8.0 has SET_USER_ID instead of SET_ANY_DEFINER and
-- ALLOW_NONEXISTENT_DEFINER.
GRANT SELECT, INSERT,      -- rows
      CREATE, DROP, ALTER, REFERENCES, LOCK TABLES, CREATE VIEW,
      TRIGGER,             -- unless triggers are left out
      CREATE ROUTINE, ALTER ROUTINE, -- unless routines are left out
      EVENT                -- unless events are left out
   ON *.* TO 'towline'@'localhost';
GRANT SET_ANY_DEFINER,     -- keep the definers of views, routines, triggers and events,
      ALLOW_NONEXISTENT_DEFINER, -- also of those whose account is not here (yet),
      SYSTEM_USER,         -- and of those whose account may not be changed by everybody, as root's
      SUPER                -- create triggers and functions beside a binary log: not needed with
                           -- log_bin_trust_function_creators = 1
   ON *.* TO 'towline'@'localhost';
-- To leave the binary log out (binaryLog: false), and to set the GTIDs (gtidPurged):
--   GRANT SESSION_VARIABLES_ADMIN, SYSTEM_VARIABLES_ADMIN ON *.* TO 'towline'@'localhost';
-- To restore accounts (includeUsers); nobody can grant what he does not have:
--   GRANT ALL PRIVILEGES ON *.* TO 'towline'@'localhost' WITH GRANT OPTION;
--   GRANT PROXY ON ''@'' TO 'towline'@'localhost' WITH GRANT OPTION;
