-- MySQL 8.0.32 or later, method logical (mysqldump). Tested with MySQL 9. Each of these is asked for before
-- a backup.
-- Replace the password; the agent reads it from --db-password-file.
CREATE USER IF NOT EXISTS 'towline'@'localhost' IDENTIFIED BY 'CHANGE-ME';
GRANT SELECT,              -- rows, the code of routines; from the schema mysql accounts and grants
      SHOW VIEW, TRIGGER, EVENT,
      PROCESS,             -- tablespaces; does anybody wait for a table that a slow reader holds up
      FLUSH_TABLES,        -- only beside a binary log: FLUSH TABLES WITH READ LOCK, for a moment, to
                           -- fix the position
      REPLICATION CLIENT   -- SHOW BINARY LOG STATUS: the position; SHOW REPLICA STATUS
   ON *.* TO 'towline'@'localhost';
