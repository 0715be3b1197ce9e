CREATE TABLE public.assignment_files (
    id integer NOT NULL,
    source integer NOT NULL,
    path text NOT NULL,
    begin text NOT NULL,
    begin_size integer NOT NULL,
    "offset" bigint NOT NULL,
    before text NOT NULL,
    size bigint NOT NULL,
    read bigint NOT NULL
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
ALTER TABLE ONLY public.assignment_holds ALTER COLUMN address SET STATISTICS 0;
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
    read bigint NOT NULL,
    node text NOT NULL,
    days integer NOT NULL
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
ALTER TABLE ONLY public.assignments ALTER COLUMN network SET STATISTICS 0;
ALTER TABLE ONLY public.assignments ALTER COLUMN subscriber SET STATISTICS 0;
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
    session text NOT NULL,
    file integer NOT NULL,
    read bigint NOT NULL
)
WITH (fillfactor='50');
ALTER TABLE ONLY public.assignments_current ALTER COLUMN network SET STATISTICS 0;
ALTER TABLE ONLY public.assignments_current ALTER COLUMN subscriber SET STATISTICS 0;
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
ALTER TABLE ONLY public.events ALTER COLUMN client SET STATISTICS 0;
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
CREATE TABLE public.nodes (
    name character varying(255) NOT NULL,
    identity character varying(32) NOT NULL,
    days text NOT NULL,
    seen bigint NOT NULL
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
INSERT INTO public.assignment_holds VALUES ('REF0-0000-0000', '192.0.2.7', 0, 1795000010000, 1829560000000);
INSERT INTO public.assignment_lengths VALUES (56);
INSERT INTO public.assignment_sources VALUES (1, 'test', 'csv', 'test.csv', 0, 0, 1795000000000, 'of gw1', 180);
INSERT INTO public.assignments VALUES (29916666, 140660179463, 7353368741922919244, '192.0.2.7', 0, 65535, 1795000000000, 1795000030000, 0, 'one-minute', '', 1);
INSERT INTO public.assignments VALUES (4398046627965, 140660179463, 8167635543233642719, '192.0.2.7', 0, 65535, 1795000060000, 1795007260000, 0, 'hours', '', 1);
INSERT INTO public.assignments VALUES (6597069773960, 140660179463, -7993703411249068033, '192.0.2.7', 0, 65535, 1795086400000, 1795259200000, 0, 'days', '', 1);
INSERT INTO public.assignments VALUES (9895604650097, -1952455243647349299, -4610330716838436004, '2001:db8::/56', 0, 65535, 1791544000000, 1796728000000, 0, 'months', '', 1);
INSERT INTO public.assignments_current VALUES (140660179465, 0, 1, '192.0.2.9', 65535, 1795000000000, 4611686018427387904, 1795000000000, 4, 'fixed', '', 0, 1795000000000);
INSERT INTO public.events VALUES (1, '01a1ee565e0070008000000000000000', 1795000000000, 'block', 'gw2', '192.0.2.7', 0, '', '', 0, '', 'one', 0, '', '', '', 'REF0-0000-0000', '', '', '');
INSERT INTO public.events VALUES (2, '01a1ee5661e870008000000000000001', 1795000001000, 'block', 'gw2', '192.0.2.7', 0, '', '', 0, '', 'one', 0, '', '', '', 'REF0-0000-0001', '', '', '');
INSERT INTO public.holds VALUES ('REF0-0000-0000', 1829560000000, 'gw1');
INSERT INTO public.nodes VALUES ('gw2', 'of gw2', '', 1795990559623);
INSERT INTO public.nodes VALUES ('gw1', 'of gw1', '', 1795990559638);
INSERT INTO public.urlward_versions VALUES ('events', 3);
INSERT INTO public.urlward_versions VALUES ('assignments', 3);
SELECT pg_catalog.setval('public.assignment_files_id_seq', 1, false);
SELECT pg_catalog.setval('public.assignment_sources_id_seq', 1, true);
SELECT pg_catalog.setval('public.events_seq_seq', 2, true);
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
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (name);
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
