CREATE TABLE public.assignment_files (
    id integer NOT NULL,
    source integer NOT NULL,
    path text NOT NULL,
    begin text NOT NULL,
    begin_size integer NOT NULL,
    "offset" bigint NOT NULL,
    before text NOT NULL,
    size bigint NOT NULL
);
CREATE SEQUENCE public.assignment_files_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.assignment_files_id_seq OWNED BY public.assignment_files.id;
CREATE TABLE public.assignment_holds (
    reference text NOT NULL,
    address text NOT NULL,
    port integer NOT NULL,
    at bigint NOT NULL,
    until bigint NOT NULL
);
CREATE TABLE public.assignment_lengths (
    length integer NOT NULL
);
CREATE TABLE public.assignment_mappings (
    source integer NOT NULL,
    outside text NOT NULL,
    start bigint NOT NULL,
    inside text NOT NULL,
    ports integer NOT NULL,
    first_port integer NOT NULL,
    "end" bigint NOT NULL
);
CREATE TABLE public.assignment_sources (
    id integer NOT NULL,
    name text NOT NULL,
    format text NOT NULL,
    path text NOT NULL,
    rows bigint NOT NULL,
    skipped bigint NOT NULL,
    read bigint NOT NULL
);
CREATE SEQUENCE public.assignment_sources_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.assignment_sources_id_seq OWNED BY public.assignment_sources.id;
CREATE TABLE public.assignments (
    cell bigint NOT NULL,
    place bigint NOT NULL,
    digest bigint NOT NULL,
    network text NOT NULL,
    first_port integer NOT NULL,
    last_port integer NOT NULL,
    start bigint NOT NULL,
    "end" bigint NOT NULL,
    ending smallint NOT NULL,
    subscriber text NOT NULL,
    session text NOT NULL,
    source integer NOT NULL
);
CREATE TABLE public.assignments_current (
    place bigint NOT NULL,
    first_port integer NOT NULL,
    source integer NOT NULL,
    network text NOT NULL,
    last_port integer NOT NULL,
    start bigint NOT NULL,
    "end" bigint NOT NULL,
    seen bigint NOT NULL,
    ending smallint NOT NULL,
    subscriber text NOT NULL,
    session text NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.events (
    seq bigint NOT NULL,
    id character varying(32) NOT NULL,
    "time" bigint NOT NULL,
    kind character varying(16) NOT NULL,
    node text NOT NULL,
    client text NOT NULL,
    client_port integer NOT NULL,
    protocol text NOT NULL,
    destination text NOT NULL,
    destination_port integer NOT NULL,
    stage text NOT NULL,
    list text NOT NULL,
    serial bigint NOT NULL,
    entry text NOT NULL,
    category text NOT NULL,
    verdict text NOT NULL,
    reference text NOT NULL,
    digest character varying(32) NOT NULL,
    "group" text NOT NULL,
    detail text NOT NULL
);
CREATE SEQUENCE public.events_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.events_seq_seq OWNED BY public.events.seq;
CREATE TABLE public.holds (
    reference character varying(100) NOT NULL,
    until bigint NOT NULL,
    node character varying(255) NOT NULL
);
CREATE TABLE public.retention (
    node character varying(255) NOT NULL,
    days text NOT NULL
);
CREATE TABLE public.urlward_unwiped (
    part character varying(64) NOT NULL,
    count bigint NOT NULL
);
CREATE TABLE public.urlward_versions (
    part character varying(64) NOT NULL,
    version integer NOT NULL
);
ALTER TABLE ONLY public.assignment_files ALTER COLUMN id SET DEFAULT nextval('public.assignment_files_id_seq'::regclass);
ALTER TABLE ONLY public.assignment_sources ALTER COLUMN id SET DEFAULT nextval('public.assignment_sources_id_seq'::regclass);
ALTER TABLE ONLY public.events ALTER COLUMN seq SET DEFAULT nextval('public.events_seq_seq'::regclass);
INSERT INTO public.assignment_files VALUES (1, 1, 'kea-leases4.csv', '94ec66a2b6e11f108c21aa2d30a6b09f', 225, 225, '94ec66a2b6e11f108c21aa2d30a6b09f', 225);
INSERT INTO public.assignment_files VALUES (2, 3, 'fixed.csv', '5d3807b3b4d2707ee43aa7ff83b786dd', 63, 63, '5d3807b3b4d2707ee43aa7ff83b786dd', 63);
INSERT INTO public.assignment_lengths VALUES (-28);
INSERT INTO public.assignment_mappings VALUES (2, '198.51.100.0/28', 0, '100.64.0.0/22', 1008, 1024, 4611686018427387904);
INSERT INTO public.assignment_sources VALUES (1, 'kea', 'kea', 'kea-leases4.csv', 2, 0, 1795000000000);
INSERT INTO public.assignment_sources VALUES (2, 'cgn-1', 'deterministic', '100.64.0.0/22 to 198.51.100.0/28', 0, 0, 0);
INSERT INTO public.assignment_sources VALUES (3, 'fixed', 'csv', 'fixed.csv', 1, 0, 1795086400000);
INSERT INTO public.assignments VALUES (3298535350775, 140660179463, -4451227937966231219, '192.0.2.7', 0, 65535, 1795000000000, 1795003600000, 1, '00:00:5e:00:53:01', '', 1);
INSERT INTO public.assignments_current VALUES (140660179463, 0, 1, '192.0.2.7', 65535, 1795007200000, 1795010800000, 1795007200000, 1, '00:00:5e:00:53:02', '');
INSERT INTO public.assignments_current VALUES (123664888064, 0, 3, '203.0.113.0/28', 65535, 1795000000000, 4611686018427387904, 1795000000000, 4, 'fixed', '');
INSERT INTO public.events VALUES (1, '01a1ee565e00700089abcdef01234567', 1795000000000, 'block', 'gw1', '192.0.2.7', 40213, 'tls', '198.51.100.1', 443, 'peek', 'one', 7, 'e-1', 'phishing', 'block', '7Q4M-2XKD-93FH', '0123456789abcdef0123456789abcdef', 'staff', '{"a":1}');
INSERT INTO public.events VALUES (2, '01a1ee5661e8700089abcdef01234567', 1795000001000, 'start', 'gw1', '', 0, '', '', 0, '', '', 0, '', '', '', '', '', '', '');
INSERT INTO public.events VALUES (3, '01a1ee5665d0700089abcdef01234567', 1795000002000, 'block', 'gw2', '192.0.2.8', 0, '', '', 0, '', 'one', 0, '', '', '', '7Q4M-2XKD-93FJ', '', '', '');
INSERT INTO public.holds VALUES ('7Q4M-2XKD-93FH', 1829560000000, 'gw1');
INSERT INTO public.retention VALUES ('gw1', '{"block": 30}');
INSERT INTO public.retention VALUES ('gw2', '{"block": 5}');
INSERT INTO public.urlward_versions VALUES ('events', 2);
INSERT INTO public.urlward_versions VALUES ('assignments', 2);
SELECT pg_catalog.setval('public.assignment_files_id_seq', 2, true);
SELECT pg_catalog.setval('public.assignment_sources_id_seq', 3, true);
SELECT pg_catalog.setval('public.events_seq_seq', 3, true);
ALTER TABLE ONLY public.assignment_files
    ADD CONSTRAINT assignment_files_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.assignment_files
    ADD CONSTRAINT assignment_files_source_begin_begin_size_key UNIQUE (source, begin, begin_size);
ALTER TABLE ONLY public.assignment_holds
    ADD CONSTRAINT assignment_holds_pkey PRIMARY KEY (reference, address, port, at);
ALTER TABLE ONLY public.assignment_lengths
    ADD CONSTRAINT assignment_lengths_pkey PRIMARY KEY (length);
ALTER TABLE ONLY public.assignment_mappings
    ADD CONSTRAINT assignment_mappings_pkey PRIMARY KEY (source, outside, start);
ALTER TABLE ONLY public.assignment_sources
    ADD CONSTRAINT assignment_sources_name_key UNIQUE (name);
ALTER TABLE ONLY public.assignment_sources
    ADD CONSTRAINT assignment_sources_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.assignments_current
    ADD CONSTRAINT assignments_current_pkey PRIMARY KEY (place, first_port, source);
ALTER TABLE ONLY public.assignments
    ADD CONSTRAINT assignments_pkey PRIMARY KEY (cell, place, digest);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_id_key UNIQUE (id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.holds
    ADD CONSTRAINT holds_pkey PRIMARY KEY (reference, node);
ALTER TABLE ONLY public.retention
    ADD CONSTRAINT retention_pkey PRIMARY KEY (node);
ALTER TABLE ONLY public.urlward_unwiped
    ADD CONSTRAINT urlward_unwiped_pkey PRIMARY KEY (part);
ALTER TABLE ONLY public.urlward_versions
    ADD CONSTRAINT urlward_versions_pkey PRIMARY KEY (part);
CREATE INDEX assignments_current_session ON public.assignments_current USING btree (source, session);
CREATE INDEX events_category_time ON public.events USING btree (category, "time");
CREATE INDEX events_kind_time ON public.events USING btree (kind, "time");
CREATE INDEX events_list_time ON public.events USING btree (list, "time");
CREATE INDEX events_reference ON public.events USING btree (reference);
CREATE INDEX events_time ON public.events USING btree ("time", id);
