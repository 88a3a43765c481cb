"""The Japanese words about firmware updates."""

from __future__ import annotations

from omamori_protocol.vocabulary import FirmwareReason, FirmwareState

from .firmware import FirmwareWords

FIRMWARE = FirmwareWords(
    title="ファームウェアの更新",
    lead="更新は、使っていない側の領域に書き込み、再起動のあとに正しく動くことを確かめてから切り替えます。確かめられないときは、元のファームウェアに戻ります。",
    none="更新についての報告はまだありません",
    version="バージョン {version}",
    running="動いているもの: {version}（スロット{slot}）",
    since="報告",
    states={
        FirmwareState.IDLE: "更新なし",
        FirmwareState.DOWNLOADING: "取得中",
        FirmwareState.VERIFIED: "取得済み",
        FirmwareState.INSTALLING: "書き込み中",
        FirmwareState.REBOOT_PENDING: "再起動待ち",
        FirmwareState.TRYING: "確認中",
        FirmwareState.COMMITTED: "更新済み",
        FirmwareState.FAILED: "更新できませんでした",
        FirmwareState.ROLLED_BACK: "元のファームウェアに戻しました",
    },
    reasons={
        FirmwareReason.NONE: "特に問題はありません。",
        FirmwareReason.UNREACHABLE: "配布元に接続できませんでした。自動でやり直します。",
        FirmwareReason.METADATA_REFUSED: "配布元の署名が正しくありませんでした。使いません。",
        FirmwareReason.METADATA_EXPIRED: "配布元の署名の期限が切れています。今のまま保護を続けます。",
        FirmwareReason.NOT_RELEASED: "指定のバージョンは、まだ公開されていません。",
        FirmwareReason.WRONG_BOARD: "別の機種のファームウェアです。使いません。",
        FirmwareReason.OLDER_VERSION: "今までのものより新しくないため、使いません。",
        FirmwareReason.EPOCH_TOO_LOW: "安全上の理由で、古い世代のファームウェアには戻せません。",
        FirmwareReason.NEEDS_STEP_BETWEEN: "先に、途中のバージョンへの更新が必要です。",
        FirmwareReason.NO_SPACE: "保存場所の空きが足りません。",
        FirmwareReason.NEEDS_PERMISSION: "差分では更新できず、全体の取得に許可が必要です。",
        FirmwareReason.PAYLOAD_REFUSED: "取得したデータが正しくありませんでした。",
        FirmwareReason.BUNDLE_REFUSED: "ファームウェアの署名が確かめられませんでした。使いません。",
        FirmwareReason.INSTALL_FAILED: "書き込みができませんでした。自動でやり直します。",
        FirmwareReason.ACTIVATION_FAILED: "起動の切り替えを準備できませんでした。自動でやり直します。",
        FirmwareReason.OWNER_REFUSES: "ご希望により、重要なもの以外の更新を見合わせています。",
        FirmwareReason.WAITS_FOR_WINDOW: "お約束の時間帯を待っています。先に電源を入れ直しても更新されます。",
        FirmwareReason.CLOCK_UNKNOWN: "機器の時刻が分からないため、待ち時間の上限まで待っています。",
        FirmwareReason.NOT_STARTED: "新しいファームウェアが起動しませんでした。",
        FirmwareReason.WIRE_DOWN: "新しいファームウェアで通信の中継を確かめられませんでした。",
        FirmwareReason.ENGINE_DOWN: "新しいファームウェアで検査エンジンが動きませんでした。",
        FirmwareReason.CANARY_UNSEEN: "新しいファームウェアで検知の確認ができませんでした。",
        FirmwareReason.DATA_NOT_WRITABLE: "新しいファームウェアで保存場所に書き込めませんでした。",
        FirmwareReason.NO_IDENTITY: "新しいファームウェアで機器の証明書を読めませんでした。",
        FirmwareReason.CLOUD_LOST: "新しいファームウェアでクラウドに接続できませんでした。",
        FirmwareReason.CRASH_LOOP: "新しいファームウェアでプログラムが繰り返し停止しました。",
        FirmwareReason.MIGRATION_FAILED: "設定やデータを新しい形に移せませんでした。",
        FirmwareReason.SUPERSEDED: "別の指定に変わったため、取りやめました。",
        FirmwareReason.INTERRUPTED: "確認の途中で電源が切れるか、停止しました。",
        FirmwareReason.DEADLINE: "確認が時間内に終わりませんでした。",
    },
)
