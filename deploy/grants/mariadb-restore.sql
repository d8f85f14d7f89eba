-- MariaDB 10.5 or later: what a restore (--allow-restore, POST /v1/restore) needs beyond the grants of
-- mariadb-logical.sql. Instead of *.* the databases that may be restored can be named.
GRANT SELECT, INSERT,   -- rows
      CREATE, DROP, ALTER, REFERENCES, LOCK TABLES, CREATE VIEW,
      TRIGGER,          -- unless triggers are left out
      CREATE ROUTINE, ALTER ROUTINE, -- unless routines are left out
      EVENT             -- unless events are left out
   ON *.* TO 'towline'@'localhost';
GRANT SET USER,         -- keep the definers of views, routines, triggers and events
      BINLOG ADMIN,     -- leave the binary log out
      SUPER             -- create triggers and functions beside a binary log: not needed with
                        -- log_bin_trust_function_creators = 1
   ON *.* TO 'towline'@'localhost';
-- To set the position of a replica (gtidPurged):
--   GRANT REPLICATION SLAVE ADMIN ON *.* TO 'towline'@'localhost';
-- To restore accounts (includeUsers); nobody can grant what he does not have:
--   GRANT ALL PRIVILEGES ON *.* TO 'towline'@'localhost' WITH GRANT OPTION;
--   GRANT PROXY ON ''@'%' TO 'towline'@'localhost' WITH GRANT OPTION;
