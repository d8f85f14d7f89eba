-- MariaDB 10.5 or later: what a restore (--allow-restore, POST /v1/restore) needs beyond the grants of
-- mariadb-logical.sql. Each of these is asked for before a restore that needs it. Instead of *.* in the
-- first statement the databases that may be restored can be named.
GRANT SELECT, INSERT,   -- rows
      CREATE, DROP, ALTER, LOCK TABLES, CREATE VIEW,
      TRIGGER,                       -- only with triggers
      CREATE ROUTINE, ALTER ROUTINE, -- only with routines
      EVENT                          -- only with events
   ON *.* TO 'towline'@'localhost';
GRANT SUPER             -- only beside a binary log: create triggers and functions. Better is
                        -- log_bin_trust_function_creators = 1, and the next statement alone
   ON *.* TO 'towline'@'localhost';
-- Up to 10.11 SUPER holds these.
GRANT SET USER,         -- only with definers kept, without SUPER: of views, routines, triggers and events
      BINLOG ADMIN      -- only with binaryLog false, without SUPER: leave the binary log out
   ON *.* TO 'towline'@'localhost';
-- To set the position of a replica (gtidPurged), without SUPER:
--   GRANT REPLICATION SLAVE ADMIN ON *.* TO 'towline'@'localhost';
-- To restore accounts (includeUsers); nobody can grant what he does not have:
--   GRANT ALL PRIVILEGES ON *.* TO 'towline'@'localhost' WITH GRANT OPTION;
--   GRANT PROXY ON ''@'%' TO 'towline'@'localhost' WITH GRANT OPTION;
