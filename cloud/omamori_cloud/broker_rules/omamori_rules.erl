%% Who may do what at a clustered broker: an authentication and authorisation backend of RabbitMQ.
%%
%% * The client certificate is the identity, its common name the user; whoever sends a password is refused.
%% * A box speaks and listens below its own name only, and its MQTT client id is its name. It cannot use AMQP, which
%%   has no client id.
%% * The services are `ingest` (takes in from its own queues; no box's client id) and `publisher` (speaks to boxes; may
%%   take over a box's client id, and hear what it says to all of them, by which `omamori-ota revoke` sees that its own
%%   connection lives).
%%
%% It asks nobody: no store, no network. Which leaves a box writes and reads stands in the application's environment,
%% which omamori_cloud.broker_cluster renders from the same table as mosquitto's access list. Any failure here refuses.
-module(omamori_rules).

-behaviour(rabbit_authn_backend).
-behaviour(rabbit_authz_backend).

-include_lib("rabbit_common/include/rabbit.hrl").

-export([user_login_authentication/2, user_login_authorization/2]).
-export([check_vhost_access/3, check_resource_access/4, check_topic_access/4, expiry_timestamp/1]).

-define(EXCHANGE, <<"amq.topic">>).

user_login_authentication(User, Properties) ->
    case {proplists:get_value(password, Properties, none), kind(User)} of
        {none, Kind} when Kind =/= nobody ->
            {ok, #auth_user{username = User, tags = [], impl = fun() -> none end}};
        {none, nobody} ->
            {refused, "~ts is neither a box nor a service", [User]};
        _ ->
            {refused, "~ts sent a password; the certificate alone is the identity", [User]}
    end.

user_login_authorization(User, Properties) ->
    case user_login_authentication(User, Properties) of
        {ok, #auth_user{impl = Impl}} -> {ok, Impl};
        Refused -> Refused
    end.

check_vhost_access(#auth_user{username = User}, <<"/">>, Context) when is_map(Context) ->
    case {kind(User), maps:get(<<"client_id">>, Context, none)} of
        {box, Id} -> Id =:= User;
        {ingest, none} -> true;
        {ingest, Id} -> starts(Id, <<"omamori-">>);
        {publisher, _} -> true;
        {nobody, _} -> false
    end;
check_vhost_access(_User, _VHost, _Context) ->
    false.

check_resource_access(#auth_user{username = User}, #resource{kind = exchange, name = ?EXCHANGE}, Permission, _) ->
    case {kind(User), Permission} of
        {box, configure} -> false;
        {box, _} -> true;
        {ingest, read} -> true;
        {publisher, configure} -> false;
        {publisher, _} -> true;
        _ -> false
    end;
check_resource_access(#auth_user{username = User}, #resource{kind = queue, name = Name}, _Permission, _) ->
    case kind(User) of
        box -> lists:member(Name, session_queues(User));
        ingest -> starts(Name, <<"omamori.">>) orelse starts(Name, <<"mqtt-subscription-omamori-">>);
        publisher -> starts(Name, <<"mqtt-subscription-">>);
        nobody -> false
    end;
check_resource_access(_User, _Resource, _Permission, _Context) ->
    false.

check_topic_access(#auth_user{username = User}, #resource{kind = topic, name = ?EXCHANGE}, Permission, Context) ->
    Words = binary:split(maps:get(routing_key, Context), <<".">>, [global]),
    may(kind(User), Permission, User, Words);
check_topic_access(_User, _Resource, _Permission, _Context) ->
    false.

expiry_timestamp(_User) ->
    never.

may(box, read, _User, [<<"omamori">>, <<"v1">>, <<"announce">> | _]) -> true;
may(box, Permission, User, [<<"omamori">>, <<"v1">>, User | Rest]) -> is_leaf(Permission, Rest);
may(ingest, read, _User, [<<"omamori">>, <<"v1">>, _Box | Rest]) -> is_leaf(write, Rest);
may(publisher, _, _User, [<<"omamori">>, <<"v1">>, <<"announce">> | _]) -> true;
may(publisher, write, _User, [<<"omamori">>, <<"v1">>, Box | Rest]) -> is_box(Box) andalso is_leaf(read, Rest);
may(_Kind, _Permission, _User, _Words) -> false.

%% Whether these last levels are what a box writes or reads; `trees` are leaves that have levels below them.
is_leaf(Permission, [Leaf]) ->
    lists:member(Leaf, setting(Permission)) orelse is_tree(Permission, Leaf);
is_leaf(Permission, [Leaf | _]) ->
    is_tree(Permission, Leaf);
is_leaf(_Permission, []) ->
    false.

is_tree(write, Leaf) -> lists:member(Leaf, setting(trees));
is_tree(_Permission, _Leaf) -> false.

setting(Name) ->
    {ok, Value} = application:get_env(omamori_rules, Name),
    Value.

kind(<<"ingest">>) -> ingest;
kind(<<"publisher">>) -> publisher;
kind(User) ->
    case is_box(User) of
        true -> box;
        false -> nobody
    end.

is_box(Name) ->
    match =:= re:run(Name, <<"^[A-Z0-9][A-Z0-9-]{3,31}$">>, [dollar_endonly, {capture, none}]).

%% The queues that the MQTT plugin makes for a connection with this client id.
session_queues(Id) ->
    [<<"mqtt-subscription-", Id/binary, "qos0">>, <<"mqtt-subscription-", Id/binary, "qos1">>,
     <<"mqtt-will-", Id/binary>>].

starts(Text, Prefix) ->
    binary:longest_common_prefix([Text, Prefix]) =:= byte_size(Prefix).
