-- MySQL 8.0.32 or later, method logical (mysqldump). Tested with MySQL 9.
-- Replace the password; the agent reads it from --db-password-file.
CREATE USER 'towline'@'localhost' IDENTIFIED BY 'CHANGE-ME';
GRANT SELECT, SHOW VIEW, TRIGGER, EVENT,
      SHOW_ROUTINE,       -- the code of routines
      LOCK TABLES,        -- tables that are not transactional
      RELOAD,             -- FLUSH TABLES WITH READ LOCK, for a moment, to fix the position
      PROCESS,            -- tablespaces; the sessions that hold locks
      REPLICATION CLIENT  -- SHOW BINARY LOG STATUS, SHOW REPLICA STATUS
   ON *.* TO 'towline'@'localhost';
