"""The English words: they say what the Japanese ones say."""

from __future__ import annotations

from datetime import datetime

from omamori_cloud.health import FeedProblem, Finding
from omamori_protocol.reported import PartName, PartState
from omamori_protocol.vocabulary import Action, Direction, EngineState, Function, Severity, UninspectedReason

from .catalogue import (
    AlertWords,
    BoxWords,
    Counted,
    FilterWords,
    FindingWords,
    FunctionWords,
    HeadlineWords,
    LedgerWords,
    OtherWords,
    ReasonWords,
    SettingsWords,
    TimeWords,
    Wording,
)
from .desk_english import EXPLAIN, MENU, REPORTS
from .firmware_english import FIRMWARE
from .liveness_english import LIVENESS
from .supervisor_english import SUPERVISOR

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _of(count: int, unit: str) -> str:
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"


def _ago(seconds: int) -> str:
    if seconds < 60:
        return "within a minute"
    if seconds < 3600:
        return f"{_of(seconds // 60, 'minute')} ago"
    if seconds < 86400:
        return f"{_of(seconds // 3600, 'hour')} ago"
    return f"{_of(seconds // 86400, 'day')} ago"


def _span(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s" if seconds % 60 else f"{seconds // 60} min"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{_of(seconds // 86400, 'day')} {seconds % 86400 // 3600} h"


def _moment(at: datetime, now: datetime) -> str:
    clock = f"{at:%H:%M:%S}"
    if at.date() == now.date():
        return f"Today {clock}"
    day = f"{at.day} {_MONTHS[at.month - 1]}"
    return f"{day} {clock}" if at.year == now.year else f"{day} {at.year} {clock}"


ENGLISH = Wording(
    language="en",
    functions={
        Function.VIRUS: FunctionWords(
            name="Virus",
            meaning="A download or an attachment contained something known as a virus.",
            advice=(
                "If it says blocked, the file has been made unusable. Delete files you did not expect without opening "
                "them, and let the antivirus program of that device run a full check."
            ),
        ),
        Function.IPS: FunctionWords(
            name="Intrusion",
            meaning="Traffic looked like an attack on a weakness, or like what a hijacked device sends.",
            advice=(
                "If it came from outside, it was stopped at the door: bring the software of the targeted device up to "
                "date. If it came from inside, that device may already be infected: take it off the network and ask us."
            ),
        ),
        Function.DANGEROUS_SITE: FunctionWords(
            name="Dangerous site",
            meaning="Traffic with somebody known for fraud, for spreading viruses or the like.",
            advice=(
                "Ask the user which mail or page led there. If a password or card number was entered, change or cancel "
                "it at once. If it repeats while nobody uses the device, suspect an infection."
            ),
        ),
        Function.CATEGORY: FunctionWords(
            name="Non-business site",
            meaning="A kind of site that often has nothing to do with work, such as games. It does not mean danger.",
            advice="Compare with your own rules and talk to the user if needed. If it is for work, nothing is wrong.",
        ),
        Function.APPLICATION: FunctionWords(
            name="Application",
            meaning="Traffic of social media, file exchange, games and other programs through which data may leak.",
            advice="Check whether your company allows the program. If not, ask the user to stop using it.",
        ),
        Function.BEHAVIOUR: FunctionWords(
            name="Behaviour",
            meaning="A device does what normal work does not need, such as probing other devices one after another.",
            advice="Take it off the network and check it with an antivirus program. If nobody knows it, ask us.",
        ),
        Function.FIREWALL: FunctionWords(
            name="Firewall",
            meaning="Traffic that is broken, or that lies about its sender.",
            advice="Once is nothing to worry about. If one device repeats it, check it for faults and wrong settings.",
        ),
    },
    unknown_function=FunctionWords(
        name="Other",
        meaning="A kind of alert that this page does not know yet.",
        advice="Please tell whoever looks after the box.",
    ),
    sentences={
        (Function.VIRUS, Direction.IN): "A virus was found in a file that {terminal} was receiving from {peer}.",
        (Function.VIRUS, Direction.OUT): "A virus was found in a file that {terminal} was sending to {peer}.",
        (Function.IPS, Direction.IN): "{peer} on the internet attacked a weakness of {terminal}.",
        (Function.IPS, Direction.OUT): "{terminal} was sending malicious traffic to {peer} on the internet.",
        (Function.DANGEROUS_SITE, Direction.IN): "{peer}, known to be dangerous, contacted {terminal}.",
        (Function.DANGEROUS_SITE, Direction.OUT): "{terminal} tried to reach {peer}, which is known to be dangerous.",
        (Function.CATEGORY, Direction.IN): "{peer}, probably not for work, contacted {terminal}.",
        (Function.CATEGORY, Direction.OUT): "{terminal} opened {peer}, probably not for work.",
        (Function.APPLICATION, Direction.IN): "{peer} used a non-business application with {terminal}.",
        (Function.APPLICATION, Direction.OUT): "{terminal} used a non-business application with {peer}.",
        (Function.BEHAVIOUR, Direction.IN): "{peer} behaved unusually towards {terminal}.",
        (Function.BEHAVIOUR, Direction.OUT): "{terminal} behaved unusually towards {peer}.",
        (Function.FIREWALL, Direction.IN): "{peer} sent incorrect traffic to {terminal}.",
        (Function.FIREWALL, Direction.OUT): "{terminal} sent incorrect traffic to {peer}.",
    },
    sentence_unknown="About traffic between {terminal} and {peer}.",
    outcomes={Action.BLOCKED: "It was blocked.", Action.LOGGED: "It was not stopped, only recorded."},
    actions={Action.BLOCKED: "Blocked", Action.LOGGED: "Recorded"},
    directions={Direction.IN: "From outside", Direction.OUT: "From inside"},
    severities={
        Severity.ONE: FindingWords(title="Note", advice="Only seen, or stopped at the door. No hurry."),
        Severity.TWO: FindingWords(
            title="Caution",
            advice=(
                "A device of yours tried to reach something bad, or something bad arrived and was neutralised. "
                "Ask the user of that device."
            ),
        ),
        Severity.THREE: FindingWords(
            title="Urgent",
            advice=(
                "A device of yours may have been taken over. Take it off the network (pull its cable or turn its Wi-Fi "
                "off) and call the help desk. Do not switch it off."
            ),
        ),
    },
    engine={
        EngineState.DOWN: "Stopped",
        EngineState.STARTING: "Getting ready",
        EngineState.INSPECTING: "Inspecting",
    },
    findings={
        Finding.OFFLINE: FindingWords(
            title="No contact",
            advice=(
                "Check the power, the lamps and the internet line. If only the line is down, the box still inspects "
                "with the data it has, and its alerts arrive later."
            ),
        ),
        Finding.NEVER_HEARD: FindingWords(
            title="Waiting for its first message",
            advice="This takes a few minutes after connecting. After ten minutes, check power and cables.",
        ),
        Finding.ENGINE_DOWN: FindingWords(
            title="Inspection has stopped",
            advice="The internet works, but traffic is not inspected. If this stays, switch the box off and on again.",
        ),
        Finding.ENGINE_STARTING: FindingWords(
            title="Getting ready to inspect",
            advice="The internet works; inspection begins shortly. Nothing to do.",
        ),
        Finding.FEED_NONE: FindingWords(
            title="No threat data yet",
            advice="The box is fetching its first threat data. Nothing to do.",
        ),
        Finding.FEED_REFUSED: FindingWords(
            title="New threat data was refused",
            advice="The box goes on protecting with the data it had. Nothing to do for you.",
        ),
        Finding.FEED_ROLLED_BACK: FindingWords(
            title="Threat data was put back to the previous version",
            advice="The new version had a problem; the previous one goes on protecting. Nothing to do for you.",
        ),
        Finding.FEED_STALE: FindingWords(
            title="Threat data is getting old",
            advice="The box protects with the data it has, but may miss the newest threats. Tell us if this stays.",
        ),
        Finding.CERTIFICATE_EXPIRING: FindingWords(
            title="The box's certificate expires soon",
            advice="It is normally renewed by itself. Tell us if this stays.",
        ),
        Finding.BYPASSED: FindingWords(
            title="Inspection is paused",
            advice="By command or by the box's button, everything passes uninspected. Inspection returns by itself.",
        ),
        Finding.SETTINGS_REFUSED: FindingWords(
            title="Some settings could not be applied",
            advice="The box goes on with the settings it had. The reason is on the box's own page.",
        ),
        Finding.TROUBLE: FindingWords(
            title="The box shows a code", advice="Look at the code that the box shows, and do what it says here."
        ),
        Finding.FIRMWARE_FAILED: FindingWords(
            title="A firmware update was not installed",
            advice="The box goes on protecting with the firmware it has. The reason is on the box's own page.",
        ),
        Finding.FIRMWARE_ROLLED_BACK: FindingWords(
            title="A firmware update was undone",
            advice="The new firmware did not prove itself; the one before is back. See the box's own page.",
        ),
    },
    feed_problems={
        FeedProblem.ALTERED: "Its signature or content was wrong, as if altered on the way. It is not used.",
        FeedProblem.EXPIRED: "It had expired. It is not used, so that nobody can keep the box on old knowledge.",
        FeedProblem.OLDER: "It was older than the present one. It is not used, so that nobody can weaken the box.",
        FeedProblem.OVERSIZE: "It was larger than allowed.",
        FeedProblem.ENGINE: "It did not pass the inspection engine's test.",
        FeedProblem.UNREACHABLE: "It could not be fetched.",
        FeedProblem.OTHER: "It did not pass the box's own checks.",
    },
    categories={
        "adult": "Adult",
        "file-sharing": "File sharing",
        "gambling": "Gambling",
        "games": "Games",
        "news": "News",
        "shopping": "Shopping",
        "sns": "Social media",
        "streaming": "Streaming",
        "webmail": "Webmail",
    },
    refusal_reasons={
        "malformed": "malformed",
        "oversize": "too large",
        "unknown-version": "unknown version",
        "content-type": "wrong content type",
        "topic": "not a valid topic",
        "too-many-devices": "more boxes than allowed",
        "unstorable": "cannot be stored",
    },
    system_events=(
        ("spool was full", "The box ran out of room for alerts; some were lost"),
        ("spool was corrupt", "The box's alert store was damaged and was made anew; unsent alerts were lost"),
        ("spool could not be written", "For a while the box could not keep alerts"),
        ("spool", "The box had trouble keeping alerts"),
        ("engine down", "Inspection stopped (traffic goes on)"),
        ("engine stopped", "Inspection stopped (traffic goes on)"),
        ("engine up", "Inspection started"),
        ("engine started", "Inspection started"),
        ("boot", "The box started"),
        ("agent started", "The box began to work"),
        ("alerts ", "More alerts than the daily limit: the rest was only counted"),
    ),
    times=TimeWords(ago=_ago, span=_span, moment=_moment),
    headline=HeadlineWords(
        no_boxes="Waiting for a box",
        no_boxes_help="Connect its power and network cables: it appears here within minutes. Nothing to type.",
        all_protected="All protected",
        all_protected_help=Counted("{count} box is watching your traffic.", "{count} boxes are watching your traffic."),
        need_attention=Counted("{count} box needs attention", "{count} boxes need attention"),
        ingest_trouble="Nothing comes in from the boxes",
        ingest_trouble_help="You see what came last. The boxes go on inspecting, and their alerts arrive later.",
        urgent=Counted("{count} ★★★ alert in the last 24 hours", "{count} ★★★ alerts in the last 24 hours"),
        urgent_help="A device may have been taken over. Find its IP and MAC address below and take it off the network.",
    ),
    box=BoxWords(
        title="Boxes",
        online="Online",
        offline="Offline",
        waiting="Waiting",
        protecting="Protecting",
        attention="Check",
        development="Development",
        last_contact="Last contact",
        never="None yet",
        firmware="Firmware",
        slot="slot {slot}",
        feed="Threat data",
        feed_version="Version {serial}",
        feed_current="in use",
        feed_old="previous one in use",
        engine="Inspection engine",
        memory="Free memory",
        memory_free="{mib} MB",
        uninspected="Not inspected",
        uninspected_none="None",
        uninspected_help="Time since power-on in which traffic passed without inspection, the start included.",
        uptime="Running for",
        unknown="Unknown",
        technical_reason="In the box's own words",
        more=Counted("{count} more box.", "{count} more boxes."),
        spooled=Counted("{count} alert waits to be sent.", "{count} alerts wait to be sent."),
    ),
    alert=AlertWords(
        title="Alerts",
        time="Time",
        severity="Severity",
        function="Function",
        terminal="Device",
        destination="Other side",
        direction="Direction",
        action="Action",
        category="Category",
        rule="Rule",
        count="Count",
        times=Counted("{count} time", "{count} times"),
        box="Box",
        mac_unknown="MAC unknown",
        terminal_unknown="device unknown",
        destination_unknown="other side unknown",
        details="Details",
        meaning="What does it mean?",
        advice="What should I do?",
        clock_wrong="The box's clock was wrong, so the time of reception is shown.",
        none="No alerts",
        none_help="Anything found appears here by itself.",
        none_filtered="No alerts match",
        older="Earlier alerts",
        newest="Back to the newest",
        new=Counted("{count} new alert", "{count} new alerts"),
        last_day="Last 24 hours",
        tile_blocked="Blocked",
        tile_logged="Recorded",
        tile_urgent="Urgent ★★★",
    ),
    filter=FilterWords(
        title="Filter",
        any="All",
        at_least="{stars} and above",
        only="{stars} only",
        terminal="Device (IP or MAC)",
        terminal_example="like 192.168.10.11",
        apply="Filter",
        clear="Clear",
        wrong="Enter a device as an IP address (like 192.168.10.11) or a MAC address. The condition was not used.",
    ),
    other=OtherWords(
        page_title="Overview",
        brand="Omamori",
        skip="Skip to content",
        language="Language",
        live="Live",
        live_stopped="Updates have stopped. They go on when the connection is back",
        as_of="As of {time} (Japan time)",
        happenings="What the boxes did",
        happenings_none="Nothing recorded yet",
        happening_unnamed="The box said something",
        feed_active="Updated to threat data version {serial}",
        feed_fine="Updates of threat data are in order again",
        feed_refused="Refused new threat data",
        feed_rolled_back="Put threat data back to the previous version",
        feed_stale="Threat data is getting old",
        guide="What the alerts mean and what to do",
        guide_help="The stars say how urgent it is. If in doubt, note the device's IP and MAC address and ask us.",
        severities="The stars",
        complement="The box complements the antivirus programs on your computers; it does not replace them. Use both.",
        no_guarantee=(
            "Unknown viruses, encrypted traffic and password-protected files cannot be detected. "
            "It is not guaranteed that all damage is prevented."
        ),
        refusals="Messages not taken in (for operators)",
        refusals_help="They broke a rule of form or size and were not stored: a hint at a faulty box.",
        refusals_count=Counted("{count} in all", "{count} in all"),
        refused_at="Time",
        refused_reason="Reason",
        refused_detail="Detail",
        refused_device="Box",
        no_device="Unknown",
        error_title="Cannot be shown",
        error_store="The records cannot be read. Please try again in a while.",
        error_not_found="There is no such page.",
        error_back="To the overview",
    ),
    ledger=LedgerWords(
        title="Traffic that was not inspected",
        lead=(
            "The box does not stop traffic when it cannot inspect it. What passed meanwhile is recorded by reason. "
            "A record that has not ended arrives every five minutes."
        ),
        none="Nothing on record has passed uninspected",
        day="Last 24 hours",
        month="Last 30 days",
        nothing="None",
        sums="Sums by reason",
        reason="Reason",
        time="Began at",
        seconds="Duration",
        packets="Packets",
        size="Data",
        sizes=("{number} bytes", "{number} KB", "{number} MB", "{number} GB"),
        link="Traffic not inspected, and settings",
    ),
    uninspected={
        UninspectedReason.ENGINE_DOWN: ReasonWords(
            name="Inspection stopped",
            meaning="The inspection engine was not running. It is started again by itself.",
        ),
        UninspectedReason.ENGINE_STARTING: ReasonWords(
            name="Getting ready",
            meaning="The inspection engine was loading threat data, as after power-on.",
        ),
        UninspectedReason.ENGINE_HUNG: ReasonWords(
            name="No answer",
            meaning="The inspection engine did not answer: traffic was let through and the engine started again.",
        ),
        UninspectedReason.OVERLOAD: ReasonWords(
            name="Too much traffic",
            meaning="There was more traffic than inspection could follow; the surplus passed.",
        ),
        UninspectedReason.COMMAND: ReasonWords(
            name="Paused on request",
            meaning="Inspection was paused by a command or by the button on the box.",
        ),
        UninspectedReason.EXEMPT: ReasonWords(
            name="Exempted",
            meaning="Traffic of devices or destinations that are set to be exempt from inspection.",
        ),
        UninspectedReason.NO_GATE: ReasonWords(
            name="No gate",
            meaning="What hands traffic over to inspection was not in place. Tell us if this stays.",
        ),
        UninspectedReason.RELAY: ReasonWords(
            name="Past the box",
            meaning="While the box was starting, restarting or without power, the relay led the network past it.",
        ),
    },
    settings=SettingsWords(
        title="Settings",
        lead="How far the box has applied the settings sent to it. What it cannot apply leaves the old ones in place.",
        version="Settings version {version} in use",
        no_version="No settings received yet (the box works as delivered)",
        reported="Reported by the box",
        none="The box has not reported about settings yet",
        refused="New settings were not accepted",
        refused_version="Version not accepted: {version}",
        command="Last command",
        bypass="Everything passes uninspected until {time}",
    ),
    parts={
        PartName.WIFI: "Wi-Fi",
        PartName.ADDRESS: "The box's IP address",
        PartName.POLICY: "When inspection is impossible",
        PartName.EXEMPTIONS: "Exemptions",
        PartName.FIRMWARE: "Firmware",
        PartName.FEED: "Threat feed",
    },
    part_states={
        PartState.NONE: "not set",
        PartState.APPLIED: "applied",
        PartState.REFUSED: "refused",
        PartState.PENDING: "waiting",
    },
    firmware=FIRMWARE,
    liveness=LIVENESS,
    supervisor=SUPERVISOR,
    menu=MENU,
    explain=EXPLAIN,
    reports=REPORTS,
)
