BEGIN TRANSACTION;
CREATE TABLE assignment_files (
	id INTEGER NOT NULL, 
	source INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	"begin" TEXT NOT NULL, 
	begin_size INTEGER NOT NULL, 
	"offset" BIGINT NOT NULL, 
	"before" TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (source, "begin", begin_size)
);
INSERT INTO "assignment_files" VALUES(1,1,'kea-leases4.csv','94ec66a2b6e11f108c21aa2d30a6b09f',225,225,'94ec66a2b6e11f108c21aa2d30a6b09f',225);
INSERT INTO "assignment_files" VALUES(2,3,'fixed.csv','5d3807b3b4d2707ee43aa7ff83b786dd',63,63,'5d3807b3b4d2707ee43aa7ff83b786dd',63);
CREATE TABLE assignment_holds (reference TEXT NOT NULL, address TEXT NOT NULL, port INTEGER NOT NULL, at BIGINT NOT NULL, until BIGINT NOT NULL, PRIMARY KEY (reference, address, port, at));
CREATE TABLE assignment_lengths (
	length INTEGER NOT NULL, 
	PRIMARY KEY (length)
);
INSERT INTO "assignment_lengths" VALUES(-28);
CREATE TABLE assignment_mappings (source INTEGER NOT NULL, outside TEXT NOT NULL, start BIGINT NOT NULL, inside TEXT NOT NULL, ports INTEGER NOT NULL, first_port INTEGER NOT NULL, "end" BIGINT NOT NULL, PRIMARY KEY (source, outside, start));
INSERT INTO "assignment_mappings" VALUES(2,'198.51.100.0/28',0,'100.64.0.0/22',1008,1024,4611686018427387904);
CREATE TABLE assignment_sources (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	format TEXT NOT NULL, 
	path TEXT NOT NULL, 
	rows BIGINT NOT NULL, 
	skipped BIGINT NOT NULL, 
	read BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "assignment_sources" VALUES(1,'kea','kea','kea-leases4.csv',2,0,1795000000000);
INSERT INTO "assignment_sources" VALUES(2,'cgn-1','deterministic','100.64.0.0/22 to 198.51.100.0/28',0,0,0);
INSERT INTO "assignment_sources" VALUES(3,'fixed','csv','fixed.csv',1,0,1795086400000);
CREATE TABLE assignments (
	cell BIGINT NOT NULL, 
	place BIGINT NOT NULL, 
	digest BIGINT NOT NULL, 
	network TEXT NOT NULL, 
	first_port INTEGER NOT NULL, 
	last_port INTEGER NOT NULL, 
	start BIGINT NOT NULL, 
	"end" BIGINT NOT NULL, 
	ending SMALLINT NOT NULL, 
	subscriber TEXT NOT NULL, 
	session TEXT NOT NULL, 
	source INTEGER NOT NULL, 
	PRIMARY KEY (cell, place, digest)
)
 WITHOUT ROWID

;
INSERT INTO "assignments" VALUES(3298535350775,140660179463,-4451227937966231219,'192.0.2.7',0,65535,1795000000000,1795003600000,1,'00:00:5e:00:53:01','',1);
CREATE TABLE assignments_current (
	place BIGINT NOT NULL, 
	first_port INTEGER NOT NULL, 
	source INTEGER NOT NULL, 
	network TEXT NOT NULL, 
	last_port INTEGER NOT NULL, 
	start BIGINT NOT NULL, 
	"end" BIGINT NOT NULL, 
	seen BIGINT NOT NULL, 
	ending SMALLINT NOT NULL, 
	subscriber TEXT NOT NULL, 
	session TEXT NOT NULL, 
	PRIMARY KEY (place, first_port, source)
)
 WITHOUT ROWID

;
INSERT INTO "assignments_current" VALUES(123664888064,0,3,'203.0.113.0/28',65535,1795000000000,4611686018427387904,1795000000000,4,'fixed','');
INSERT INTO "assignments_current" VALUES(140660179463,0,1,'192.0.2.7',65535,1795007200000,1795010800000,1795007200000,1,'00:00:5e:00:53:02','');
CREATE TABLE urlward_unwiped (
	part VARCHAR(64) NOT NULL, 
	count BIGINT NOT NULL, 
	PRIMARY KEY (part)
);
CREATE TABLE urlward_versions (
	part VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (part)
);
INSERT INTO "urlward_versions" VALUES('assignments',2);
CREATE INDEX assignments_current_session ON assignments_current (source, session);
COMMIT;
