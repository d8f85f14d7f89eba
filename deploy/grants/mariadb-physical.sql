-- MariaDB 10.5 or later, method physical (mariadb-backup). Each of these is asked for before a backup.
-- Replace the password; the agent reads it from --db-password-file.
CREATE USER IF NOT EXISTS 'towline'@'localhost' IDENTIFIED BY 'CHANGE-ME';
GRANT RELOAD,           -- BACKUP STAGE
      PROCESS,          -- InnoDB's state, and the queries that a lock would wait for
      BINLOG MONITOR,   -- only beside a binary log: SHOW MASTER STATUS, the backup's position
      REPLICA MONITOR,  -- SHOW ALL SLAVES STATUS: is this a replica, how far behind
      REFERENCES        -- see the names and sizes of tables, not their rows
   ON *.* TO 'towline'@'localhost';
