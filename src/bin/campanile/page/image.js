// Images that people send each other.

// The type comes from the bytes, never from the sender: nothing but these four reaches an <img>.
export function imageType(bytes) {
  const starts = (...magic) => magic.every((byte, i) => bytes[i] === byte);
  const ascii = (from, to) => String.fromCharCode(...bytes.subarray(from, to));
  if (starts(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)) return "image/png";
  if (starts(0xff, 0xd8, 0xff)) return "image/jpeg";
  if (ascii(0, 6) === "GIF87a" || ascii(0, 6) === "GIF89a") return "image/gif";
  if (ascii(0, 4) === "RIFF" && ascii(8, 12) === "WEBP") return "image/webp";
  return null;
}
