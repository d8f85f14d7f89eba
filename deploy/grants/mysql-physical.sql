-- MySQL 8.0, 8.4 or 9, method physical (xtrabackup of the same series). The project has no xtrabackup to
-- test with: these are the privileges that its manual asks for, and REFERENCES. The agent asks for each of
-- them before a backup, and that is tested.
-- Replace the password; the agent reads it from --db-password-file.
CREATE USER IF NOT EXISTS 'towline'@'localhost' IDENTIFIED BY 'CHANGE-ME';
GRANT BACKUP_ADMIN,        -- LOCK INSTANCE FOR BACKUP; the log's position
      PROCESS,             -- InnoDB's state, and the queries that a lock would wait for
      RELOAD, LOCK TABLES, -- FLUSH TABLES WITH READ LOCK, where there are tables that are not InnoDB's
      REPLICATION CLIENT,  -- SHOW BINARY LOG STATUS: the position; SHOW REPLICA STATUS
      REFERENCES           -- see the names and sizes of tables, not their rows
   ON *.* TO 'towline'@'localhost';
GRANT SELECT ON performance_schema.log_status TO 'towline'@'localhost';
GRANT SELECT ON performance_schema.keyring_component_status TO 'towline'@'localhost';
GRANT SELECT ON performance_schema.replication_group_members TO 'towline'@'localhost';
