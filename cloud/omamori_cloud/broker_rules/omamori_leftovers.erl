%% Takes away what the connections of a dead node leave behind at a clustered broker.
%%
%% A subscription with QoS 1 is a queue that belongs to its connection and lies on the same node. When that node dies,
%% RabbitMQ 4.0 keeps the queue: it counts as durable, although nobody can ever read it again. Whatever is routed to it
%% is refused to whoever publishes (0x83), also the announcement for all boxes, until the node is back. So the living
%% nodes forget such queues.
%%
%% * One node does it, the first of those that run, if they are the majority; if it dies, the next one looks again.
%% * A box may come back on another node at any moment, with a queue of the same name. Each queue is therefore looked at
%%   again in the transaction that deletes it: only one whose owner was on the dead node goes.
%% * Knows of RabbitMQ's store in Mnesia, which is what 4.0 has unless Khepri was asked for. Failures are logged, and it
%%   looks again; they never end the broker.
-module(omamori_leftovers).

-behaviour(gen_server).

-rabbit_boot_step({?MODULE,
                   [{description, "what dead nodes leave behind"},
                    {mfa, {rabbit_sup, start_restartable_child, [?MODULE]}},
                    {requires, routing_ready}]}).

-export([start_link/0, init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% Long enough for a box's own return to do it first, shorter than anybody waits for an acknowledgement.
-define(SOON_MS, 1000).
%% A node may be without its broker while Erlang still runs; nobody tells.
-define(AGAIN_MS, 20000).

start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

init([]) ->
    ok = net_kernel:monitor_nodes(true),
    {ok, erlang:start_timer(?AGAIN_MS, self(), look)}.

handle_call(_Question, _From, Timer) ->
    {reply, ignored, Timer}.

handle_cast(_Message, Timer) ->
    {noreply, Timer}.

handle_info({nodedown, _Node}, Timer) ->
    {noreply, look_in(?SOON_MS, Timer)};
handle_info({timeout, Timer, look}, Timer) ->
    try look()
    catch Class:Reason -> logger:warning("leftovers of dead nodes: ~tp", [{Class, Reason}])
    end,
    {noreply, look_in(?AGAIN_MS, Timer)};
handle_info(_Message, Timer) ->
    {noreply, Timer}.

look_in(Milliseconds, Timer) ->
    _ = erlang:cancel_timer(Timer),
    erlang:start_timer(Milliseconds, self(), look).

look() ->
    Members = rabbit_nodes:list_members(),
    Running = lists:usort([node() | rabbit_nodes:list_running()]),
    case {Running, Members -- Running} of
        {[First | _], [_ | _] = Dead} when First =:= node(), 2 * length(Running) > length(Members) -> forget(Dead);
        _ -> ok
    end.

forget(Dead) ->
    Found = rabbit_db_queue:filter_all_durable(fun(Queue) -> is_left(Queue, Dead) end),
    case length([Queue || Queue <- Found, is_deleted(Queue)]) of
        0 -> ok;
        Count -> logger:notice("~b subscriptions of connections that died with ~tp forgotten", [Count, Dead])
    end.

is_left(Queue, Dead) ->
    Owner = amqqueue:get_exclusive_owner(Queue),
    is_pid(Owner) andalso lists:member(node(Owner), Dead).

is_deleted(Queue) ->
    Name = amqqueue:get_name(Queue),
    Owner = amqqueue:get_exclusive_owner(Queue),
    Delete = fun() -> delete_if(Name, Owner, mnesia:wread({rabbit_durable_queue, Name})) end,
    case rabbit_mnesia:execute_mnesia_transaction(Delete) of
        ok ->
            false;
        Deletions ->
            _ = rabbit_binding:process_deletions(Deletions),
            rabbit_binding:notify_deletions(Deletions, <<"rmq-internal">>),
            rabbit_core_metrics:queue_deleted(Name),
            ok = rabbit_event:notify(queue_deleted,
                                     [{name, Name}, {type, amqqueue:get_type(Queue)},
                                      {user_who_performed_action, <<"rmq-internal">>}]),
            true
    end.

delete_if(Name, Owner, [Now]) ->
    case amqqueue:get_exclusive_owner(Now) of
        Owner -> rabbit_db_queue:delete(Name, normal);
        _ -> ok
    end;
delete_if(_Name, _Owner, []) ->
    ok.
