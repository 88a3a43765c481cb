"""The English words about absences, and about what is wrong around a box."""

from __future__ import annotations

from omamori_cloud.liveness import OutageReason
from omamori_protocol.trouble import Trouble

from .liveness import LivenessWords, OutageWords, TroubleWords

LIVENESS = LivenessWords(
    title="Times without contact",
    lead="When box and cloud lost each other, and the most probable reason. No mail is sent for a short power cut.",
    none="Contact was never lost",
    start="Began",
    length="Length",
    reason="Reason",
    lasts="{span} (goes on)",
    code="Code {code}",
    told="told",
    evidence={
        "goodbye": "announced: {value}",
        "quiet_s": "announced time: {value} s",
        "will_after_s": "from the last word to the lost connection: {value} s",
        "service_cut_off": "our own service was cut off at the same time",
        "gone_together": "boxes that went together: {value}",
        "boxes_there": "boxes that were there then: {value}",
        "uptime_s": "time since its start when it was back: {value} s",
        "away_s": "time without a connection, as the box counted it: {value} s",
        "trouble": "code that the box showed meanwhile: {value}",
        "last_end": "how the run before ended: {value}",
        "power": "the supervisor says of the power: {value}",
        "power_ms": "without power for {value} ms",
    },
    outages={
        OutageReason.UNKNOWN: OutageWords(name="Being looked at", meaning="It has just begun; nobody knows why yet."),
        OutageReason.MAINTENANCE: OutageWords(
            name="Planned restart", meaning="An announced restart, for an update or so."
        ),
        OutageReason.OVERDUE: OutageWords(
            name="Not back from a restart", meaning="It announced a restart and did not come back in time."
        ),
        OutageReason.SWITCHED_OFF: OutageWords(
            name="Switched off", meaning="Somebody switched it off in an orderly way."
        ),
        OutageReason.POWER: OutageWords(name="Power cut", meaning="Its plug was pulled, or the power failed."),
        OutageReason.LINE: OutageWords(
            name="Line down", meaning="The box ran on, but the line or the router was down."
        ),
        OutageReason.CRASH: OutageWords(
            name="Restarted by itself", meaning="The box had stopped and was started again. Call us if it goes on."
        ),
        OutageReason.PROGRAM: OutageWords(
            name="Agent restarted", meaning="Only the managing program started again. Traffic was not interrupted."
        ),
        OutageReason.SERVICE: OutageWords(
            name="Our own failure", meaning="The cause was in the cloud. The box went on protecting."
        ),
        OutageReason.LINE_OR_POWER: OutageWords(
            name="Line or power",
            meaning="Check the box's power and lamps, and the line. Which it was, the box tells when it is back.",
        ),
        OutageReason.DEAD: OutageWords(name="Away for long", meaning="No contact for more than a day. Please call us."),
    },
    troubles={
        Trouble.NO_CABLE: TroubleWords(
            title="No cable is connected", advice="Check that the network cables are firmly plugged in at both ends."
        ),
        Trouble.NO_WAN_CABLE: TroubleWords(
            title="The cable to the router is not connected",
            advice='Check the cable between "WAN" and the router, and the router\'s power.',
        ),
        Trouble.NO_LAN_CABLE: TroubleWords(
            title="The cable to the office is not connected",
            advice="Check the cable between \"LAN\" and the office's switch, and the switch's power.",
        ),
        Trouble.SWAPPED: TroubleWords(
            title="WAN and LAN are swapped",
            advice='Plug the cable from the router into "WAN", and the one from the office\'s switch into "LAN".',
        ),
        Trouble.LOOP: TroubleWords(
            title="Cables form a loop",
            advice="Pull the one cable too many between switches, or between switch and box.",
        ),
        Trouble.NO_DHCP: TroubleWords(
            title="The router gives no IP address",
            advice="Restart the router. Where addresses are fixed the box must be told its own: call us.",
        ),
        Trouble.NO_ROUTER: TroubleWords(
            title="The router is not known", advice="Check the router's DHCP settings (default gateway)."
        ),
        Trouble.ROUTER_SILENT: TroubleWords(
            title="The router does not answer", advice="Switch the router off and on again, and check its cable."
        ),
        Trouble.NO_NAMES: TroubleWords(title="Names cannot be looked up", advice="Check the router's DNS settings."),
        Trouble.NO_INTERNET: TroubleWords(
            title="There is no internet",
            advice="Switch the ONU (modem) and the router off and on again. Do other devices get through?",
        ),
        Trouble.PORTAL: TroubleWords(
            title="A login page of the line or the like is in the way",
            advice="Finish what the first page on a PC asks for, or ask the line's provider.",
        ),
        Trouble.DOUBLE_ROUTER: TroubleWords(
            title="There seem to be two routers in a row",
            advice="Protection does not suffer. If a VPN or the like has trouble, make one of them a bridge.",
        ),
        Trouble.SERVICE_UNREACHABLE: TroubleWords(
            title="The cloud cannot be reached", advice="Please wait. Call us if it lasts for more than an hour."
        ),
        Trouble.BROKER_UNREACHABLE: TroubleWords(
            title="Alerts cannot be delivered",
            advice="Check whether the office blocks a part of the traffic that goes out. Call us if it goes on.",
        ),
        Trouble.BROKER_REFUSES: TroubleWords(
            title="The box's certificate is not accepted", advice="We look at its registration. Call us with the code."
        ),
        Trouble.CLAIM_REFUSED: TroubleWords(
            title="The box is not registered yet", advice="Call us with the code and the serial number on the label."
        ),
        Trouble.CLOCK_WRONG: TroubleWords(
            title="The box's clock is wrong",
            advice="It is set by itself. Call us if that takes longer than half an hour.",
        ),
        Trouble.NO_WIRE: TroubleWords(
            title="Forwarding has a problem", advice="Pull the box's plug for 5 s. Call us if it goes on."
        ),
        Trouble.ENGINE_DOWN: TroubleWords(
            title="The inspection engine does not run", advice="Pull the box's plug for 5 s. Call us if it goes on."
        ),
        Trouble.HOT: TroubleWords(
            title="The box is hot", advice="Put it where air gets to it, and do not cover it. Call us if it goes on."
        ),
    },
    unknown_trouble=TroubleWords(title="The box shows a code", advice="Call us with the code."),
    service_title="Our own state",
    service_lead="When the cloud could not take in what boxes say, in the last 7 days. Boxes protect meanwhile.",
    service_stopped="the program had stopped",
    service_none="There was no such time",
    service_cause="Reason",
    workers="Programs that take messages in",
    worker="Name",
    worker_at="Last sign",
    worker_fine="takes messages in",
    worker_silent="no sign",
)
