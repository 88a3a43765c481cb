#!/usr/bin/env escript
%% The broker's plugin without a broker: who may come in, and which queues of a dead node are forgotten. What it asks
%% of RabbitMQ are stubs here, so that moments can be had that a cluster shows once in a thousand times.
%% Argument: the directory of the compiled modules. Ends with an error at the first difference.

-define(BOX, <<"ZA35-900001">>).
-define(DEAD, 'z@dead').
-define(OTHER, 'zz@living').  % its name comes after ours

main([Folder]) ->
    true = code:add_patha(Folder),
    check_doors(),
    make_stubs(),
    check_leftovers(),
    io:format("all as it should be~n").

check_doors() ->
    Doors = [{true, ?BOX, ?BOX}, {false, ?BOX, <<"ZA35-900002">>}, {false, ?BOX, none},
             {true, <<"ingest">>, none}, {true, <<"ingest">>, <<"omamori-ears">>}, {false, <<"ingest">>, ?BOX},
             {true, <<"publisher">>, none}, {true, <<"publisher">>, ?BOX}, {false, <<"stranger">>, <<"stranger">>}],
    [same(Expected, omamori_rules:check_vhost_access(user(User), <<"/">>, context(Id)), {User, Id})
     || {Expected, User, Id} <- Doors],
    same(false, omamori_rules:check_vhost_access(user(?BOX), <<"other">>, context(?BOX)), another_vhost),
    same(false, omamori_rules:check_vhost_access(user(<<"publisher">>), <<"/">>, undefined), no_context).

user(Name) -> {auth_user, Name, [], none}.

context(none) -> #{peeraddr => {192, 0, 2, 1}};
context(Id) -> #{peeraddr => {192, 0, 2, 1}, <<"client_id">> => Id}.

check_leftovers() ->
    Whole = [node(), ?OTHER, ?DEAD],
    All = [back, dead, living, shared],
    Nothing = fun() -> ok end,
    same(All, left(Whole, Whole, Nothing), nobody_is_dead),
    same([living, shared], left([node(), ?OTHER], Whole, Nothing), a_node_is_dead),
    same(All, left([node(), 'a@living'], [node(), 'a@living', ?DEAD], Nothing), another_one_does_it),
    same(All, left([node()], Whole, Nothing), a_minority_does_not),
    Return = fun() -> ets:update_element(queues, back, {2, pid_on(?OTHER)}) end,
    same([back, living, shared], left([node(), ?OTHER], Whole, Return), a_box_that_came_back_between),
    same(All, left([node(), ?OTHER], Whole, fun() -> throw({error, no_store}) end), the_store_is_away),
    Never = erlang:start_timer(1000000, self(), look),
    {noreply, _} = omamori_leftovers:handle_info({nodedown, ?DEAD}, Never),
    receive {timeout, _, look} -> ok after 20000 -> error(does_not_look) end.

%% The queues there are after a look; `Meanwhile` happens just before each deletion.
left(Running, Members, Meanwhile) ->
    ets:delete_all_objects(queues),
    ets:insert(queues, [{dead, pid_on(?DEAD)}, {back, pid_on(?DEAD)}, {living, pid_on(?OTHER)}, {shared, none}]),
    [persistent_term:put(Name, Value) || {Name, Value} <- [{running, Running}, {members, Members}, {meanwhile, Meanwhile}]],
    Timer = make_ref(),
    {noreply, Next} = omamori_leftovers:handle_info({timeout, Timer, look}, Timer),
    _ = erlang:cancel_timer(Next),
    lists:sort([Name || {Name, _} <- ets:tab2list(queues)]).

%% A process of another node, as the external term format has it (NEW_PID_EXT with SMALL_ATOM_UTF8_EXT).
pid_on(Node) ->
    Name = atom_to_binary(Node),
    binary_to_term(<<131, 88, 119, (byte_size(Name)), Name/binary, 1:32, 0:32, 1:32>>).

make_stubs() ->
    ets:new(queues, [named_table, public]),
    stub("rabbit_nodes", ["list_running() -> persistent_term:get(running).",
                          "list_members() -> persistent_term:get(members)."]),
    stub("amqqueue", ["get_name(Q) -> element(1, Q).", "get_exclusive_owner(Q) -> element(2, Q).",
                      "get_type(_) -> rabbit_classic_queue."]),
    stub("rabbit_db_queue", ["filter_all_durable(Is) -> [Q || Q <- ets:tab2list(queues), Is(Q)].",
                             "delete(Name, normal) -> ets:delete(queues, Name), {gone, Name}."]),
    stub("rabbit_mnesia", ["execute_mnesia_transaction(Do) -> (persistent_term:get(meanwhile))(), Do()."]),
    stub("mnesia", ["wread({rabbit_durable_queue, Name}) -> ets:lookup(queues, Name)."]),
    stub("rabbit_binding", ["process_deletions({gone, _} = All) -> All.",
                            "notify_deletions({gone, _}, <<\"rmq-internal\">>) -> ok."]),
    stub("rabbit_core_metrics", ["queue_deleted(_) -> ok."]),
    stub("rabbit_event", ["notify(queue_deleted, [_ | _]) -> ok."]).

stub(Name, Functions) ->
    Forms = [form(Text) || Text <- ["-module(" ++ Name ++ ").", "-compile(export_all)." | Functions]],
    {ok, Module, Code} = compile:forms(Forms, [nowarn_export_all]),
    {module, Module} = code:load_binary(Module, Name, Code).

form(Text) ->
    {ok, Tokens, _} = erl_scan:string(Text),
    {ok, Form} = erl_parse:parse_form(Tokens),
    Form.

same(Value, Value, _What) -> ok;
same(Expected, Found, What) -> error({What, {expected, Expected}, {found, Found}}).
