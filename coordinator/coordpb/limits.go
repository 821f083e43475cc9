package coordpb

// What both ends of a connection hold messages to.
const (
	// MaxMessage bounds one message, in bytes. A trainer state that might not fit goes in pieces.
	MaxMessage = 64 << 20
	// MaxNameLength bounds every name and address that a peer gives, in bytes.
	MaxNameLength = 256
	// PieceSize is the number of bytes of a blob that a message carries; MaxPieceSize is the bound.
	PieceSize    = 256 << 10
	MaxPieceSize = 1 << 20
)
