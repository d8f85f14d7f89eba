-- MariaDB 10.5 or later, method logical (mariadb-dump). Each of these is asked for before a backup.
-- Replace the password; the agent reads it from --db-password-file.
CREATE USER IF NOT EXISTS 'towline'@'localhost' IDENTIFIED BY 'CHANGE-ME';
GRANT SELECT,           -- rows; from the schema mysql the code of routines, accounts and grants
      SHOW VIEW, TRIGGER, EVENT,
      PROCESS,          -- does anybody wait for a table that a slow reader holds up
      BINLOG MONITOR,   -- only beside a binary log: SHOW MASTER STATUS, the backup's position
      REPLICA MONITOR   -- SHOW ALL SLAVES STATUS: is this a replica, how far behind
   ON *.* TO 'towline'@'localhost';
